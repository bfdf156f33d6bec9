"""USE: the Unified State Exam in Russian; the score is the mean grade of its variants."""

from collections.abc import Sequence

from darumeru.data.bundle import Row
from darumeru.requests import Answer
from darumeru.scoring.aggregate import cluster_sum, mean
from darumeru.scoring.text import EXAM_POINTS, exam_points
from darumeru.task import GenerateTask, Score


class Use(GenerateTask):
    """Points of an item over the points of its variant: 34, or `meta.max_points` where a variant is not a whole exam."""

    METRICS = {"grade_norm": cluster_sum, "points": mean}

    def gold(self, doc: Row) -> str:
        """Return the key."""
        for name in ("id_task", "type", "variant"):
            if name not in doc["meta"]:
                raise ValueError(f"field 'meta.{name}' is missing")
        return str(doc["outputs"])

    def gold_text(self, doc: Row) -> str:
        """Return the key; the first of several right words."""
        return self.gold(doc).split(",")[0] if doc["meta"]["type"] == "text" else self.gold(doc)

    def cluster(self, doc: Row) -> str:
        """Return the exam variant."""
        return str(doc["meta"]["variant"])

    def score(self, doc: Row, answers: Sequence[Answer], reference_tokens: Sequence[int | None]) -> Score:
        """Return the item's points."""
        meta = doc["meta"]
        points = exam_points(str(meta["type"]), str(meta["id_task"]), self.gold(doc), answers[0].text.strip())
        whole = float(meta.get("max_points") or EXAM_POINTS)
        return Score({"grade_norm": points / whole, "points": float(points)}, cluster=self.cluster(doc))
