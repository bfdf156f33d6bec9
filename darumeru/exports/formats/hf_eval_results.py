"""`hf-eval-results`: the file of a model repository from which the hub shows evaluation results.

The hub's format has a value a task and no field for its interval, its documents or how they were asked: the notes say these.
"""

from __future__ import annotations

from typing import Any

from darumeru.exports.format import Export, text_format
from darumeru.leaderboard.entry import data_title
from darumeru.leaderboard.tables import shots
from darumeru.record.draws import first_split
from darumeru.record.scores import Score, TaskResult


def _notes(export: Export, name: str, result: TaskResult) -> str:
    header, data = export.header, first_split(export.header.tasks[name].data)[1]
    parts = [
        f"{name} of {header.suite.name} {export.tasks[name].VERSION}",
        " and ".join(result.primary) + (" (mean)" if len(result.primary) > 1 else ""),
        _interval(result.score, result.level),
        f"{result.documents} documents" + ("" if result.units == result.documents else f", {result.units} independent"),
        f"{header.mode}, {shots(header)}",
        f"data {data_title(header)}" + (f", rows sha256 {data['sha256'][:16]}" if data.get("sha256") else ""),
        f"lower is better: {'no' if result.higher_is_better else 'yes'}",
    ]
    return "; ".join(parts)


def _interval(score: Score, level: float) -> str:
    if score.low is None or score.high is None:
        return f"no interval ({score.reason})" if score.reason else "no interval"
    return f"{level:.0%} interval {score.low:.4f} to {score.high:.4f}".replace("%", " %")


def make(export: Export) -> str:
    """Return the YAML text, an entry a task, through huggingface_hub's own classes."""
    import yaml
    from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

    export.check()
    entries = []
    for name, result in export.scores.tasks.items():
        if result.score.value is None:
            continue
        data: dict[str, Any] = first_split(export.header.tasks[name].data)[1]
        entries.append(
            EvalResultEntry(
                dataset_id=str(data.get("repository") or export.tasks[name].config.dataset_path),
                task_id=name,
                value=round(result.score.value, 6),
                dataset_revision=data.get("revision"),
                date=export.scores.finished,
                notes=_notes(export, name, result),
            )
        )
    return yaml.safe_dump(eval_result_entries_to_yaml(entries), allow_unicode=True, sort_keys=False)


hf_eval_results = text_format("The hub's `.eval_results` file.", ".eval_results/darumeru.yaml", make)
