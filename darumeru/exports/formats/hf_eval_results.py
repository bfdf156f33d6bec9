"""`hf-eval-results`: the file of a model repository from which the hub shows evaluation results.

The hub's format has a value a task and no field for its interval, its documents or how they were asked: the notes say these.
It names data sets of the hub, so only tasks that read all documents of one are in it.
"""

from __future__ import annotations

import logging

from darumeru.exports.format import Export, NothingToTellError, text_format
from darumeru.leaderboard.entry import data_title
from darumeru.leaderboard.tables import shots
from darumeru.record.draws import first_split
from darumeru.record.scores import Score, TaskResult

log = logging.getLogger(__name__)


def _notes(export: Export, name: str, result: TaskResult) -> str:
    header, data = export.header, first_split(export.header.tasks[name].data)[1]
    parts = [
        f"{name} of {header.suite.name} {export.version(name)}",
        " and ".join(result.primary) + (" (mean)" if len(result.primary) > 1 else ""),
        _interval(result.score, result.level),
        f"{result.documents} documents" + ("" if result.units == result.documents else f", {result.units} independent"),
        f"{header.mode}, {shots(header)}",
        f"data {data_title(header)}" + (f", rows sha256 {data['sha256'][:16]}" if data.get("sha256") else ""),
        *([f"approximate answers: {n} of {result.requests}"] if (n := result.approximate_answers) else []),
        f"lower is better: {'no' if result.higher_is_better else 'yes'}",
    ]
    return "; ".join(parts)


def _interval(score: Score, level: float) -> str:
    if score.low is None or score.high is None:
        return f"no interval ({score.reason})" if score.reason else "no interval"
    return f"{level:.0%} interval {score.low:.4f} to {score.high:.4f}".replace("%", " %")


def make(export: Export) -> str:
    """Return the YAML text, an entry a task, through huggingface_hub's own classes.

    Raises:
        NothingToTellError: no task read all documents of a data set of the hub.
    """
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    export.check()
    entries, other, part = [], [], []
    for name, result in export.scores.tasks.items():
        facts = export.header.tasks[name]
        data = first_split(facts.data)[1]
        if not data.get("repository"):
            other.append(name)
        elif facts.documents != facts.of or (facts.of is None and export.header.limit):
            part.append(name)
        elif result.score.value is not None:
            entries.append(
                EvalResultEntry(
                    dataset_id=str(data["repository"]),
                    task_id=name,
                    value=round(result.score.value, 6),
                    dataset_revision=data.get("revision"),
                    date=export.scores.finished,
                    notes=_notes(export, name, result),
                )
            )
    reasons = [
        *([f"{', '.join(other)} read other data ({data_title(export.header)})"] if other else []),
        *([f"of {', '.join(part)} only a part of the documents was asked"] if part else []),
    ]
    if not entries:
        raise NothingToTellError(
            f"Run '{export.run.path}' has nothing for the hub's results, which are of whole data sets of the hub: "
            f"{'; '.join(reasons) or 'no task has a score'}. Run it with --data hub and without --limit."
        )
    if reasons:
        log.warning("Left out of the hub's results, which are of whole data sets of the hub: %s.", "; ".join(reasons))
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), allow_unicode=True, sort_keys=False)


hf_eval_results = text_format("The hub's `.eval_results` file.", ".eval_results/darumeru.yaml", make)
