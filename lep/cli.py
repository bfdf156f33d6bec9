"""The command `lep`: each command is one call of one public function."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lep.errors import LepError, UserError

app = typer.Typer(
    help="Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it. "
    "Add --debug to any command to see where it failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
vocab = typer.Typer(help="Make, check and compare vocabularies.", no_args_is_help=True)
app.add_typer(vocab, name="vocab")

_MANY = {"--corpus", "--text", "--keep-languages", "--scripts", "--held-out"}
"""Options that take several values after one flag (shell patterns such as data/*.txt)."""

Model = Annotated[str, typer.Option("--model", help="Model folder or hub id (owner/name). Never changed.")]
Corpus = Annotated[
    list[str], typer.Option("--corpus", help="Texts: .txt, .jsonl, .parquet (.gz, .zst), or hub:owner/name.")
]
Output = Annotated[Path, typer.Option("--output", help="Folder to write; it appears whole or not at all.")]
Lang = Annotated[str, typer.Option("--lang", help="Language of the new tokens, for its scripts.")]
Scripts = Annotated[
    list[str] | None, typer.Option("--scripts", help="Unicode scripts instead of those of --lang; 'any' for all.")
]
Texts = Annotated[list[str] | None, typer.Option("--text", help="Further texts to try the invariants on.")]
Field = Annotated[str, typer.Option("--field", help="Text field of JSON lines, Parquet and data sets.")]
MinCount = Annotated[int, typer.Option("--min-count", help="Rarer pairs are not merged.")]
KeepLanguages = Annotated[
    list[str] | None,
    typer.Option("--keep-languages", help="Texts whose segmentation must not change (source languages, code)."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace an output folder that exists.")]
Link = Annotated[bool, typer.Option("--link", help="Hard-link unchanged weight files instead of copying them.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@vocab.command("extend")
def extend_command(
    model: Model,
    corpus: Corpus,
    output: Output,
    add: Annotated[int, typer.Option("--add", help="New tokens to append.")],
    lang: Lang = "ru",
    scripts: Scripts = None,
    text: Texts = None,
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> None:
    """Append new tokens to a BPE vocabulary; old tokens and other scripts stay as they are."""
    from lep.vocabulary import extend_vocabulary

    manifest = extend_vocabulary(
        model, corpus, output, add=add, lang=lang, scripts=scripts, texts=text or (), field=field,
        min_count=min_count, force=force,
    )  # fmt: skip
    _show(output, manifest)


@vocab.command("optimize")
def optimize_command(
    model: Model,
    corpus: Corpus,
    output: Output,
    keep: Annotated[int, typer.Option("--keep", help="Old tokens to keep, bytes and special ones included.")],
    add: Annotated[int, typer.Option("--add", help="New tokens to append.")],
    keep_languages: KeepLanguages = None,
    lang: Lang = "ru",
    scripts: Scripts = None,
    text: Texts = None,
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> None:
    """Cut a BPE vocabulary to its most used tokens, then append new ones."""
    from lep.vocabulary import optimize_vocabulary

    manifest = optimize_vocabulary(
        model, corpus, output, keep=keep, add=add, keep_languages=keep_languages or (), lang=lang, scripts=scripts,
        texts=text or (), field=field, min_count=min_count, force=force,
    )  # fmt: skip
    _show(output, manifest)


@vocab.command("swap")
def swap_command(
    model: Model,
    corpus: Corpus,
    output: Output,
    count: Annotated[int, typer.Option("--count", help="Tokens to replace.")],
    keep_languages: KeepLanguages = None,
    lang: Lang = "ru",
    scripts: Scripts = None,
    text: Texts = None,
    field: Field = "text",
    min_count: MinCount = 2,
    force: Force = False,
) -> None:
    """Replace the least used tokens by new ones; the size stays, so the model keeps its shape."""
    from lep.vocabulary import swap_vocabulary

    manifest = swap_vocabulary(
        model, corpus, output, count=count, keep_languages=keep_languages or (), lang=lang, scripts=scripts,
        texts=text or (), field=field, min_count=min_count, force=force,
    )  # fmt: skip
    _show(output, manifest)


@vocab.command("train")
def train_command(
    model: Model,
    corpus: Corpus,
    output: Output,
    kind: Annotated[str, typer.Option("--kind", help="bpe or unigram.")],
    size: Annotated[int, typer.Option("--size", help="Tokens in all, special ones and bytes included.")],
    text: Texts = None,
    field: Field = "text",
    force: Force = False,
) -> None:
    """Train a whole new vocabulary with the model's special tokens and chat template."""
    from lep.vocab_train import train_vocabulary

    manifest = train_vocabulary(
        model, corpus, output, kind=kind, size=size, texts=text or (), field=field, force=force  # type: ignore[arg-type]
    )  # fmt: skip
    _show(output, manifest)


@vocab.command("check")
def check_command(
    old: Annotated[str, typer.Argument(help="The tokenizer that the new one came from.")],
    new: Annotated[str, typer.Argument(help="The new tokenizer.")],
    text: Texts = None,
    lang: Lang = "ru",
    scripts: Scripts = None,
    field: Field = "text",
) -> None:
    """Check the invariants of a new vocabulary; exit code 1 where one does not hold."""
    from lep.vocabulary import check_folders

    checks = check_folders(old, new, text or (), lang=lang, scripts=scripts, field=field)
    table = Table(box=None, header_style="bold")
    for heading in ("", "invariant", "seen"):
        table.add_column(heading)
    for check in checks:
        mark = Text("holds", style="green") if check.passed else Text("BROKEN", style="red")
        table.add_row(mark, Text(check.name), Text(check.detail))
    Console().print(table)
    if not all(check.passed for check in checks):
        raise LepError("The vocabulary breaks an invariant.")


@vocab.command("report")
def report_command(
    models: Annotated[list[str], typer.Argument(help="Model or tokenizer folders, or hub ids.", metavar="MODEL...")],
    text: Annotated[list[str], typer.Option("--text", help="Texts: FILE or LABEL=FILE.")],
    field: Field = "text",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this JSON file.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Write a bar chart to this SVG file.")] = None,
) -> None:
    """Compare tokenizers on texts: symbols per token, fertility, one-token words, unused and strange tokens."""
    from lep.files import write_json
    from lep.vocab_report import picture, report_vocabularies

    report = report_vocabularies(models, text, field=field)
    table = Table(header_style="bold")
    columns = ("text", "tokenizer", "tokens", "symbols/token", "tokens/word", "bytes/token", "one-token words",
               "new used", "new never used")  # fmt: skip
    for number, heading in enumerate(columns):
        table.add_column(heading, justify="left" if number < 2 else "right")
    for row in report.rows:
        unused = f"{row.new_tokens - row.new_tokens_used:,}" if row.new_tokens else "–"
        table.add_row(
            Text(row.text), Text(row.tokenizer), f"{row.tokens:,}", f"{row.symbols_per_token:.3f}",
            f"{row.tokens_per_word:.3f}", f"{row.bytes_per_token:.3f}", f"{row.one_token_words:.1%}",
            f"{row.new_tokens_used:,}" if row.new_tokens else "–", unused,
        )  # fmt: skip
    console = Console()
    console.print(table)
    for name in report.longest:
        console.print(Text(f"{name}: longest {' | '.join(map(repr, report.longest[name]))}"))
        if report.strangest[name]:
            console.print(Text(f"{name}: strangest {' | '.join(map(repr, report.strangest[name]))}"))
    odd = {row.text: row.not_nfc for row in report.rows if row.not_nfc}
    for label, number in odd.items():
        console.print(
            Text(f"{label}: {number:,} characters are not in composed form (NFC) and split words in most tokenizers.")
        )
    if json_file is not None:
        write_json(json_file, report.as_json())
    if picture_file is not None:
        picture_file.write_text(picture(report), encoding="utf-8")


@app.command("init")
def init_command(
    model: Model,
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Folder with the new tokenizer.")],
    output: Output,
    strategy: Annotated[
        str, typer.Option("--strategy", help="mean, weighted, random, random-row, focus or omp.")
    ] = "mean",
    seed: Annotated[int, typer.Option("--seed", help="For random and random-row.")] = 0,
    diagonal: Annotated[bool, typer.Option("--diagonal", help="random: variances instead of covariance.")] = False,
    corpus: Annotated[
        list[str] | None, typer.Option("--corpus", help="focus and omp: texts to compare tokens.")
    ] = None,
    donor: Annotated[str | None, typer.Option("--donor", help="focus and omp: a model with the new tokens.")] = None,
    atoms: Annotated[int, typer.Option("--atoms", help="omp: most shared tokens for one new one.")] = 64,
    field: Field = "text",
    pad_to: Annotated[int, typer.Option("--pad-to", help="Round the rows up to a multiple of this.")] = 64,
    link: Link = False,
    force: Force = False,
) -> None:
    """Give a model a new vocabulary: new embeddings and head from the old ones."""
    from lep.initialisation import initialise

    manifest = initialise(
        model, tokenizer, output, strategy=strategy, seed=seed, diagonal=diagonal, corpus=corpus or (),  # type: ignore[arg-type]
        donor=donor, atoms=atoms, field=field, pad_to=pad_to, link=link, force=force, warn=_warn,
    )  # fmt: skip
    _show(output, manifest)


@app.command("pretrain")
def pretrain_command(
    model: Model,
    corpus: Corpus,
    output: Annotated[
        Path, typer.Option("--output", help="Folder of the training; the same command goes on where it stopped.")
    ],
    held_out: Annotated[
        list[str] | None, typer.Option("--held-out", help="Texts to measure on, [NAME=]FILE; not trained on.")
    ] = None,
    train: Annotated[
        str,
        typer.Option(
            "--train",
            help="embeddings, head, new-rows, embeddings+ends, all; or a schedule with shares: head:0.1,embeddings.",
        ),
    ] = "embeddings",
    learning_rate: Annotated[float, typer.Option(help="Of the embedding (and of a head tied to it).")] = 2e-4,
    head_learning_rate: Annotated[float | None, typer.Option(help="Of an untied head. [--learning-rate]")] = None,
    rest_learning_rate: Annotated[float | None, typer.Option(help="Of layers and norms. [--learning-rate]")] = None,
    total_batch_size: Annotated[int, typer.Option(help="Rows of a step, over all GPUs and passes.")] = 256,
    per_device_train_batch_size: Annotated[int, typer.Option(help="Rows of one pass on one device.")] = 8,
    block_size: Annotated[int, typer.Option(help="Most tokens of a block.")] = 1024,
    packing: Annotated[bool, typer.Option(help="Several short blocks in a row, kept apart by masks.")] = True,
    weight_decay: Annotated[float, typer.Option(help="Token rows decay only where a batch used them.")] = 0.1,
    lr_scheduler_type: Annotated[str, typer.Option(help="cosine, linear, constant, constant_with_warmup.")] = "cosine",
    warmup_steps: Annotated[int, typer.Option(help="Steps of warm-up.")] = 100,
    num_train_epochs: Annotated[float, typer.Option(help="Passes over the corpus.")] = 1.0,
    max_steps: Annotated[int, typer.Option(help="Steps instead of epochs, where above 0.")] = -1,
    max_grad_norm: Annotated[float, typer.Option(help="Longer gradients are shortened to this; 0 never.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the order of the data.")] = 0,
    dtype: Annotated[str, typer.Option(help="Of computation: auto, float32, bfloat16.")] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    attention: Annotated[str | None, typer.Option(help="eager, sdpa, flex_attention. [transformers' choice]")] = None,
    gradient_checkpointing: Annotated[bool, typer.Option(help="Less memory, more time.")] = False,
    cache_hidden_gb: Annotated[
        float, typer.Option(help="Disk for hidden states while an untied head is trained alone for several epochs.")
    ] = 0.0,
    field: Field = "text",
    lang: Annotated[str, typer.Option("--lang", help="Language of the corpus; another script is warned about.")] = "ru",
    scripts: Scripts = None,
    new_from: Annotated[int | None, typer.Option(help="First new row, where no lep.json tells.")] = None,
    save_steps: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 500,
    save_total_limit: Annotated[int | None, typer.Option(help="Checkpoints to keep. [all]")] = None,
    eval_steps: Annotated[int | None, typer.Option(help="Steps between held-out measurements. [--save-steps]")] = None,
    logging_steps: Annotated[int, typer.Option(help="Steps between lines of history.jsonl.")] = 10,
    held_out_characters: Annotated[int, typer.Option(help="Characters of each held-out text that are read.")] = 50_000,
    report_to: Annotated[list[str] | None, typer.Option(help="tensorboard, wandb, trackio (repeatable).")] = None,
    suite: Annotated[str | None, typer.Option(help="Benchmark to run along the way, such as darumeru-train.")] = None,
    eval_every: Annotated[int | None, typer.Option(help="Steps between its runs. [--save-steps]")] = None,
    data: Annotated[str, typer.Option(help="Its data: hub, mini, or the folder of a bundle.")] = "mini",
    limit: Annotated[int | None, typer.Option(help="Documents of each of its tasks.")] = None,
    stop_if: Annotated[
        list[str] | None, typer.Option(help='Rule that ends the training: "darucopy_ru < 0.9 for 3" (repeatable).')
    ] = None,
    keep_best: Annotated[
        str | None, typer.Option(help="Keep the checkpoint that is best by this measure; it is the result.")
    ] = None,
    sweep_lr: Annotated[str | None, typer.Option(help="First try these learning rates: 2e-5,5e-5,1e-4,2e-4.")] = None,
    sweep_fraction: Annotated[float, typer.Option(help="Share of the steps for each of them.")] = 0.2,
    sweep_only: Annotated[bool, typer.Option(help="Try them and stop.")] = False,
    force: Force = False,
) -> None:
    """Continued pre-training: embeddings and head (or what --train says) on a corpus; resumes by itself."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars of libraries would tear ours apart
    from lep.pretraining import pretrain, settings_of

    settings = settings_of(
        train=train, learning_rate=learning_rate, head_learning_rate=head_learning_rate,
        rest_learning_rate=rest_learning_rate, total_batch_size=total_batch_size,
        per_device_train_batch_size=per_device_train_batch_size, block_size=block_size, packing=packing,
        weight_decay=weight_decay, lr_scheduler_type=lr_scheduler_type, warmup_steps=warmup_steps,
        num_train_epochs=num_train_epochs, max_steps=max_steps, max_grad_norm=max_grad_norm, seed=seed, dtype=dtype,
        device=device, attention=attention, gradient_checkpointing=gradient_checkpointing,
        cache_hidden_gb=cache_hidden_gb, field=field, lang=lang, scripts=tuple(scripts or ()), new_from=new_from,
        save_steps=save_steps, save_total_limit=save_total_limit, eval_steps=eval_steps, logging_steps=logging_steps,
        held_out_characters=held_out_characters, report_to=tuple(report_to or ()), suite=suite, eval_every=eval_every,
        data=data, limit=limit, stop_if=tuple(stop_if or ()), keep_best=keep_best,
    )  # fmt: skip
    held = held_out or []
    blocks = None
    try:
        if sweep_lr is not None:
            from lep.sweep import pick, sweep

            place = output.with_name(output.name + "-sweep")
            blocks = place / "blocks"
            trials = sweep(
                model, corpus, place, _numbers("--sweep-lr", sweep_lr), held_out=held, settings=settings,
                fraction=sweep_fraction, warn=_warn,
            )  # fmt: skip
            chosen = pick(trials)
            _show_trials(trials, chosen)
            settings = settings.model_copy(update={"learning_rate": chosen.learning_rate})
        if not sweep_only:
            manifest = pretrain(
                model, corpus, output, held_out=held, settings=settings, force=force, warn=_warn, blocks=blocks
            )
            if _is_first():
                _show(output, manifest)
    except KeyboardInterrupt:
        _fail("Stopped. Repeat the command to go on from the last checkpoint.", 130)


@app.command("propagate")
def propagate_command(
    base: Annotated[str, typer.Option("--base", help="The base model B.")],
    adapted: Annotated[str, typer.Option("--adapted", help="B in the new vocabulary, embeddings trained.")],
    instruct: Annotated[str, typer.Option("--instruct", help="The instruct variant of B.")],
    output: Output,
    method: Annotated[str, typer.Option("--method", help="swap, overlap, conversion, ridge or auto.")] = "conversion",
    strength: Annotated[float, typer.Option("--strength", help="ridge: λ in units of the mean eigenvalue.")] = 0.1,
    text: Annotated[list[str] | None, typer.Option("--text", help="auto: held-out text to choose by.")] = None,
    field: Field = "text",
    link: Link = False,
    force: Force = False,
) -> None:
    """Carry trained embeddings over to an instruct model; everything else of it stays."""
    from lep.corpus import read_all
    from lep.propagation import propagate

    manifest = propagate(
        base, adapted, instruct, output, method=method, strength=strength,  # type: ignore[arg-type]
        texts=read_all(text, field=field, limit=200_000) if text else (), link=link, force=force, warn=_warn,
    )  # fmt: skip
    _show(output, manifest)


@app.command("inspect")
def inspect_command(
    folder: Annotated[str, typer.Argument(help="Model or tokenizer folder, or hub id.")], as_json: AsJson = False
) -> None:
    """Say what a folder is and which stages made it."""
    from lep.inspection import inspect_folder

    found = inspect_folder(folder)
    if as_json:
        stages = [{"depth": depth, "role": role, **manifest} for depth, role, manifest in found.stages]
        sys.stdout.write(json.dumps({"facts": found.facts, "stages": stages}, ensure_ascii=False, indent=2) + "\n")
        return
    console = Console()
    for key, value in found.facts.items():
        console.print(Text(f"{key}: {value}"))
    if not found.stages:
        console.print("No lep.json: this folder was not made by lep.")
    for depth, role, manifest in found.stages:
        console.print(Text("  " * depth + f"{role}: {manifest['stage']}, {manifest['created']}", style="bold"))
        for name, entry in manifest["inputs"].items():
            console.print(Text("  " * depth + f"  from {name}: {entry['name']} ({entry['fingerprint'][:26]})"))
        for key, value in {**manifest["settings"], **manifest["measures"]}.items():
            if key not in ("checks", "added_ids"):
                console.print(Text("  " * depth + f"  {key}: {_plain(value)}"))


def main() -> NoReturn:
    """Run the command line: 0 where all went well, 2 for mistakes of the user, 1 for failures."""
    arguments = expand(sys.argv[1:])
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    try:
        app(arguments, prog_name="lep", standalone_mode=True)
    except LepError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Stopped; nothing was written.", 130)
    except Exception as error:
        if debug:
            raise
        kept = "Checkpoints are kept" if arguments[:1] == ["pretrain"] else "Nothing was written"
        _fail(f"{type(error).__name__}: {error}. {kept}; add --debug to see where.", 1)
    sys.exit(0)


def expand(arguments: Sequence[str]) -> list[str]:
    """`--corpus a b` as `--corpus a --corpus b`, for the options that take several values."""
    result: list[str] = []
    flag: str | None = None
    given = False
    for argument in arguments:
        if argument.startswith("-") and argument != "-":
            flag, given = (argument if argument in _MANY else None), False
            result.append(argument)
        elif flag is not None and given:
            result += [flag, argument]
        else:
            given = True
            result.append(argument)
    return result


def _show(output: Path, manifest: Mapping[str, Any]) -> None:
    console = Console()
    console.print(Text(f"{manifest['stage']} → {output}", style="bold"))
    for key, value in manifest["measures"].items():
        if key == "checks":
            console.print(Text(f"  {len(value)} invariants hold"))
        elif key != "added_ids":
            console.print(Text(f"  {key}: {_plain(value)}"))


def _show_trials(trials: Sequence[Any], chosen: Any) -> None:
    if not _is_first():
        return
    table = Table(header_style="bold")
    for heading in ("learning rate", "loss", "bits per byte", "score", ""):
        table.add_column(heading, justify="right")
    for trial in trials:
        score = "–" if trial.score is None else f"{trial.score:.4f}"
        mark = Text("picked", style="green") if trial is chosen else Text("")
        table.add_row(f"{trial.learning_rate:g}", f"{trial.loss:.4f}", f"{trial.bits_per_byte:.4f}", score, mark)
    Console().print(table)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r} is no list of numbers such as 2e-5,5e-5.") from None


def _is_first() -> bool:
    """Whether this is the process that speaks, of several under `accelerate launch`."""
    return os.environ.get("RANK", "0") == "0"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _warn(message: str) -> None:
    if not _is_first():
        return
    Console(stderr=True).print(Text(f"Warning: {message}", style="yellow"))


def _fail(message: str, code: int) -> NoReturn:
    Console(stderr=True, soft_wrap=True).print(Text("Error: ", style="red") + Text(message))
    sys.exit(code)


__all__ = ["UserError", "app", "expand", "main"]
