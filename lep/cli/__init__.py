"""The command `lep`: each command is one call of one public function."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from darumeru.errors import DarumeruError, UserError
from lep.initialisation.strategy import names as strategy_names
from lep.propagation.method import choices as method_choices

if TYPE_CHECKING:
    from darumeru.evaluation import Progress
    from lep.pipeline.cost import Estimate
    from lep.pipeline.execution import State

app = typer.Typer(
    help="Learned Embedding Propagation: a new vocabulary for a model and for every instruct variant of it. "
    "Add --debug to any command to see where it failed.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
vocab = typer.Typer(help="Make, check and compare vocabularies.", no_args_is_help=True)
app.add_typer(vocab, name="vocab")
corpus_app = typer.Typer(help="Clean, deduplicate and mix corpora.", no_args_is_help=True)
app.add_typer(corpus_app, name="corpus")
calibration = typer.Typer(help="Make data to calibrate a model on, and train on it.", no_args_is_help=True)
app.add_typer(calibration, name="calibrate")

_MANY = {
    "--corpus", "--text", "--keep-languages", "--scripts", "--source", "--skip", "--prompts", "--copy-corpus", "--exclude",
    "--data", "--engine-set", "--judge-set", "--held-out", "--set",
}  # fmt: skip
"""Options that take several values after one flag (shell patterns such as data/*.txt)."""

_LONG = {"checks", "added_ids", "losses"}
"""Measures of a manifest that are not shown in full."""

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
CorpusFile = Annotated[
    Path,
    typer.Option(
        "--output",
        help="File to write: .jsonl or .txt (also .gz, .zst), .parquet. Its report, FILE.report.json, ends it.",
    ),
]
ForceFile = Annotated[bool, typer.Option("--force", help="Replace an output file that exists.")]
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
    from lep.vocab.commands import extend_vocabulary

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
    from lep.vocab.commands import optimize_vocabulary

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
    from lep.vocab.commands import swap_vocabulary

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
    from lep.vocab.train import train_vocabulary

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
    from lep.vocab.commands import check_folders

    checks = check_folders(old, new, text or (), lang=lang, scripts=scripts, field=field)
    table = Table(box=None, header_style="bold")
    for heading in ("", "invariant", "seen"):
        table.add_column(heading)
    for check in checks:
        mark = Text("holds", style="green") if check.passed else Text("BROKEN", style="red")
        table.add_row(mark, Text(check.name), Text(check.detail))
    Console().print(table)
    if not all(check.passed for check in checks):
        raise DarumeruError("The vocabulary breaks an invariant.")


@vocab.command("report")
def report_command(
    models: Annotated[list[str], typer.Argument(help="Model or tokenizer folders, or hub ids.", metavar="MODEL...")],
    text: Annotated[list[str], typer.Option("--text", help="Texts: FILE or LABEL=FILE.")],
    field: Field = "text",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the report to this JSON file.")] = None,
    picture_file: Annotated[Path | None, typer.Option("--picture", help="Write a bar chart to this SVG file.")] = None,
) -> None:
    """Compare tokenizers on texts: symbols per token, fertility, one-token words, unused and strange tokens."""
    from darumeru.files import write_json
    from lep.vocab.report import picture, report_vocabularies

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


@corpus_app.command("clean")
def corpus_clean_command(
    corpus: Corpus,
    output: CorpusFile,
    lang: Annotated[str, typer.Option("--lang", help="Letters of its scripts and Latin ones stay.")] = "ru",
    scripts: Annotated[
        list[str] | None, typer.Option("--scripts", help="Unicode scripts that stay instead; 'any' for all.")
    ] = None,
    max_other: Annotated[
        float, typer.Option("--max-other", help="Drop documents with a larger share of letters of other scripts.")
    ] = 0.1,
    nfc: Annotated[bool, typer.Option("--nfc", help="Compose characters (Unicode NFC).")] = False,
    min_chars: Annotated[int, typer.Option("--min-chars", help="Drop shorter documents.")] = 0,
    max_chars: Annotated[int | None, typer.Option("--max-chars", help="Drop longer documents.")] = None,
    skip: Annotated[list[str] | None, typer.Option("--skip", help="Rules to leave out, by their names.")] = None,
    field: Field = "text",
    force: ForceFile = False,
) -> None:
    """Drop metadata, links, markup and badly formatted texts; keep the wanted scripts."""
    from lep.corpus.clean import clean_corpus

    report = clean_corpus(
        corpus, output, lang=lang, scripts=scripts, max_other=max_other, nfc=nfc, min_chars=min_chars,
        max_chars=max_chars, skip=skip or (), field=field, force=force, warn=_warn,
    )  # fmt: skip
    rows = [
        (name, tally["changed"], tally["dropped"], tally["lines"], tally["characters"])
        for name, tally in report["measures"]["rules"].items()
    ]
    _show_corpus(output, report, ("rule", "documents changed", "dropped", "lines dropped", "characters"), rows)


@corpus_app.command("dedup")
def corpus_dedup_command(
    corpus: Corpus,
    output: CorpusFile,
    threshold: Annotated[float, typer.Option("--threshold", help="Least similarity (Jaccard) of duplicates.")] = 0.8,
    num_perm: Annotated[int, typer.Option("--num-perm", help="MinHash permutations; more are more exact.")] = 128,
    ngram: Annotated[int, typer.Option("--ngram", help="Words in a shingle.")] = 5,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the permutations.")] = 0,
    field: Field = "text",
    force: ForceFile = False,
) -> None:
    """Keep the first of equal or nearly equal documents (MinHash, locality-sensitive hashing)."""
    from lep.corpus.dedup import dedup_corpus

    report = dedup_corpus(
        corpus, output, threshold=threshold, num_perm=num_perm, ngram=ngram, seed=seed, field=field, force=force
    )  # fmt: skip
    rows = [(name, *count.values()) for name, count in report["measures"]["duplicates"].items()]
    _show_corpus(output, report, ("duplicates", "documents", "characters"), rows)


@corpus_app.command("mix")
def corpus_mix_command(
    source: Annotated[list[str], typer.Option("--source", help="Texts with their weight: FILE or FILE=WEIGHT.")],
    output: CorpusFile,
    documents: Annotated[int | None, typer.Option("--documents", help="Documents to write, or")] = None,
    chars: Annotated[
        int | None, typer.Option("--chars", help="characters to write; weights are of them, then.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draw.")] = 0,
    field: Field = "text",
    force: ForceFile = False,
) -> None:
    """Draw documents from sources in the shares of their weights."""
    from lep.corpus.mix import Source, mix_corpus

    report = mix_corpus(
        [Source.parse(each) for each in source], output, documents=documents, characters=chars, seed=seed, field=field,
        force=force, warn=_warn,
    )  # fmt: skip
    rows = [
        (row["name"], f"{row['wanted_share']:.1%}", f"{row['share']:.1%}", row["documents"], row["characters"],
         row["available_documents"])
        for row in report["measures"]["sources"]
    ]  # fmt: skip
    _show_corpus(output, report, ("source", "wanted", "share", "documents", "characters", "of documents"), rows)


@app.command("init")
def init_command(
    model: Model,
    tokenizer: Annotated[str, typer.Option("--tokenizer", help="Folder with the new tokenizer.")],
    output: Output,
    strategy: Annotated[
        str, typer.Option("--strategy", help=f"{', '.join(strategy_names())}.")
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
    from lep.initialisation.job import initialise

    manifest = initialise(
        model, tokenizer, output, strategy=strategy, seed=seed, diagonal=diagonal, corpus=corpus or (),
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
    from lep.pretraining.job import pretrain
    from lep.pretraining.settings import settings_of

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
            from lep.pretraining.sweep import pick, sweep

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
    method: Annotated[str, typer.Option("--method", help=f"{', '.join(method_choices())}.")] = "conversion",
    strength: Annotated[float, typer.Option("--strength", help="ridge: λ in units of the mean eigenvalue.")] = 0.1,
    text: Annotated[list[str] | None, typer.Option("--text", help="auto: held-out text to choose by.")] = None,
    field: Field = "text",
    link: Link = False,
    force: Force = False,
) -> None:
    """Carry trained embeddings over to an instruct model; everything else of it stays."""
    from lep.corpus.read import read_all
    from lep.propagation.job import propagate

    manifest = propagate(
        base, adapted, instruct, output, method=method, strength=strength,
        texts=read_all(text, field=field, limit=200_000) if text else (), link=link, force=force, warn=_warn,
    )  # fmt: skip
    _show(output, manifest)


@calibration.command("data")
def calibrate_data_command(
    output: Annotated[Path, typer.Option("--output", help="File to write (.jsonl); its report is written last.")],
    prompts: Annotated[list[str] | None, typer.Option("--prompts", help="Prompts: .jsonl (.gz) or .txt.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="The original instruct model, which answers.")] = None,
    engine: Annotated[str, typer.Option("--engine", help="auto, hf, vllm or api.")] = "auto",
    engine_set: Annotated[
        list[str] | None,
        typer.Option("--engine-set", help="KEY=VALUE: dtype, device, base_url, model_args.KEY, … as darumeru run has."),
    ] = None,
    answers: Annotated[bool, typer.Option("--answers", help="Keep the answers that the prompts come with.")] = False,
    system: Annotated[str | None, typer.Option("--system", help="System turn for prompts that have none.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first prompts.")] = None,
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Longest answer; cut ones are left out.")] = 1024,
    judge: Annotated[str | None, typer.Option("--judge", help="A model that grades the answers, 1 to 5.")] = None,
    judge_engine: Annotated[str, typer.Option("--judge-engine", help="auto, hf, vllm or api.")] = "auto",
    judge_set: Annotated[list[str] | None, typer.Option("--judge-set", help="As --engine-set, for the judge.")] = None,
    judge_by: Annotated[
        str, typer.Option("--judge-by", help="text (the grade it writes) or labels (its most probable digit).")
    ] = "text",
    min_grade: Annotated[int, typer.Option("--min-grade", help="Answers with a lower grade are left out.")] = 4,
    copy: Annotated[int, typer.Option("--copy", help="How many texts to copy to add.")] = 0,
    copy_corpus: Annotated[
        list[str] | None, typer.Option("--copy-corpus", help="Texts to draw these from; see --corpus of lep vocab.")
    ] = None,
    copy_min: Annotated[int, typer.Option("--copy-min", help="Characters of the shortest text to copy.")] = 1000,
    copy_max: Annotated[int, typer.Option("--copy-max", help="Characters of the longest text to copy.")] = 6000,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Training texts that texts to copy must not overlap with.")
    ] = None,
    data: Annotated[
        list[str] | None, typer.Option("--data", help="Benchmark bundles that they must not overlap with.")
    ] = None,
    overlap_words: Annotated[
        int, typer.Option("--overlap-words", min=2, help="So many words in a row in common are an overlap.")
    ] = 13,
    field: Field = "text",
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of texts.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an output that was made otherwise.")] = False,
) -> None:
    """Let a model answer prompts, have a judge grade the answers, and add texts to copy."""
    from lep.calibration import make_data

    with _progress("Answers and grades") as progress:
        report = make_data(
            model, prompts or (), output, engine=engine, settings=_settings(engine_set), answers=answers, system=system,
            limit=limit, max_tokens=max_tokens, judge=judge, judge_engine=judge_engine,
            judge_settings=_settings(judge_set), judge_by=judge_by, min_grade=min_grade, copy=copy,  # type: ignore[arg-type]
            copy_corpus=copy_corpus or (), copy_characters=(copy_min, copy_max), exclude=exclude or (),
            bundles=data or (), overlap_words=overlap_words, field=field, seed=seed, force=force, progress=progress,
        )  # fmt: skip
    _show_data(output, report)


@calibration.command("train")
def calibrate_train_command(
    model: Model,
    data: Annotated[Path, typer.Option("--data", help="Chat examples (.jsonl), as lep calibrate data writes them.")],
    output: Output,
    recipe: Annotated[str, typer.Option("--recipe", help="self or instruct: the paper's settings.")] = "self",
    lora_rank: Annotated[int | None, typer.Option("--lora-rank")] = None,
    lora_alpha: Annotated[float | None, typer.Option("--lora-alpha")] = None,
    lora_dropout: Annotated[float | None, typer.Option("--lora-dropout")] = None,
    lora_layers: Annotated[
        str | None, typer.Option("--lora-layers", help="all, or ends: the first and the last.")
    ] = None,
    train_embeddings: Annotated[
        bool | None, typer.Option("--train-embeddings/--no-train-embeddings", help="Train the input embeddings whole.")
    ] = None,
    train_head: Annotated[
        bool | None, typer.Option("--train-head/--no-train-head", help="Train the output head whole.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate")] = None,
    weight_decay: Annotated[float | None, typer.Option("--weight-decay")] = None,
    schedule: Annotated[str | None, typer.Option("--schedule", help="cosine, linear or constant.")] = None,
    warmup: Annotated[float | None, typer.Option("--warmup", help="Share of the steps.")] = None,
    batch: Annotated[int | None, typer.Option("--batch", help="Examples of one optimizer step.")] = None,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Tokens of a row; longer are left out.")
    ] = None,
    epochs: Annotated[float | None, typer.Option("--epochs")] = None,
    max_steps: Annotated[int | None, typer.Option("--max-steps", help="Stop after so many steps.")] = None,
    seed: Annotated[int | None, typer.Option("--seed")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    dtype: Annotated[str, typer.Option("--dtype", help="Of what is not trained: auto, float32 or bfloat16.")] = "auto",
    save_every: Annotated[int, typer.Option("--save-every", help="Steps between checkpoints.")] = 50,
    suite: Annotated[str | None, typer.Option("--suite", help="Suite of Darumeru to evaluate along the way.")] = None,
    eval_every: Annotated[int, typer.Option("--eval-every", help="Steps between evaluations.")] = 50,
    eval_data: Annotated[str, typer.Option("--eval-data", help="Bundle to evaluate on.")] = "mini",
    force: Force = False,
) -> None:
    """Train on chat examples with LoRA and merge the result into a plain model folder."""
    from lep.calibration import calibrate

    changes = {
        "lora_rank": lora_rank, "lora_alpha": lora_alpha, "lora_dropout": lora_dropout, "lora_layers": lora_layers,
        "train_embeddings": train_embeddings, "train_head": train_head, "learning_rate": learning_rate,
        "weight_decay": weight_decay, "schedule": schedule, "warmup": warmup, "batch": batch, "max_length": max_length,
        "epochs": epochs, "max_steps": max_steps, "seed": seed,
    }  # fmt: skip
    with _progress("Calibration") as progress:
        manifest = calibrate(
            model, data, output, recipe=recipe, device=device, dtype=dtype, save_every=save_every,  # type: ignore[arg-type]
            suite=suite, eval_every=eval_every, eval_data=eval_data, force=force, warn=_warn, progress=progress,
            **{name: value for name, value in changes.items() if value is not None},
        )  # fmt: skip
    _show(output, manifest)


@app.command("run")
def run_command(
    recipe: Annotated[
        str, typer.Argument(help="Recipe (.yaml), or the name of one that comes with lep: smollm2-ru, …")
    ],
    output: Annotated[Path, typer.Option("--output", help="Folder of the study; the same command goes on in it.")],
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE with dotted keys: pretrain.max_steps=100 (several).")
    ] = None,
    corpus: Annotated[list[str] | None, typer.Option("--corpus", help="Texts, in place of the recipe's.")] = None,
    only: Annotated[str | None, typer.Option("--only", help="Run this stage only.")] = None,
    first: Annotated[str | None, typer.Option("--from", help="First stage to run.")] = None,
    last: Annotated[str | None, typer.Option("--until", help="Last stage to run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan, what it costs and what is missing.")
    ] = False,
    device_name: Annotated[
        str, typer.Option("--device-name", help="Device of the hours in the plan: cpu, a100, h100, …")
    ] = "cpu",
) -> None:
    """The whole pipeline from one file, from an untouched pair of models to a leaderboard and an adaptation report."""
    for bars in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):
        os.environ.setdefault(bars, "1")
    from lep.pipeline import estimate, load_recipe, plan, run_recipe

    console = Console(stderr=True)
    chosen = load_recipe(recipe, [*(changes or ()), *([f"corpus={json.dumps(corpus)}"] if corpus else [])])
    if dry_run:
        states = plan(chosen, output, only=only, first=first, last=last)
        _show_plan(states, estimate(chosen, output, states, device_name))
        return
    page = run_recipe(
        chosen, output, only=only, first=first, last=last, stage=_progress, warn=_warn,
        say=lambda what: console.print(Text(what, style="bold")),
    )  # fmt: skip
    if page is None:
        Console().print("Not all stages are done; the report is written when they are.")
    else:
        Console(soft_wrap=True).print(Text(f"Report: {page}\nLeaderboard: {output / 'leaderboard' / 'index.html'}"))


@app.command("inspect")
def inspect_command(
    folder: Annotated[str, typer.Argument(help="Model or tokenizer folder, or hub id.")], as_json: AsJson = False
) -> None:
    """Say what a folder is and which stages made it."""
    from lep.measure.inspection import inspect_folder

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
            if key not in _LONG:
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
    except DarumeruError as error:
        if debug:
            raise
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        _fail("Stopped; the output was not written. The same command goes on from journals and checkpoints.", 130)
    except Exception as error:
        if debug:
            raise
        kept = "Checkpoints are kept" if arguments[:1] in (["pretrain"], ["run"]) else "Nothing was written"
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


def _show_plan(states: Sequence[State], cost: Estimate) -> None:
    steps = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("Step", "State", "From", "Output"):
        steps.add_column(heading, no_wrap=heading in ("Step", "Output"))
    for state in states:
        because = "" if state.why.startswith("after ") else f": {state.why}"  # the next column says after what
        how = "done" if state.done else f"{'to run' if state.chosen else 'not asked for'}{because}"
        style = "green" if state.done else "" if state.chosen else "dim"
        given = ", ".join((*state.step.needs, *state.step.given))
        place = state.step.output.parent if state.step.output.suffix else state.step.output
        steps.add_row(Text(state.step.name), Text(how, style=style), Text(given), Text(f"{place.name}/"))
    table = Table(box=SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for heading in ("To run", "Steps", "Tokens", "FLOP", f"Hours on {cost.device.name}", "GB of disk"):
        table.add_column(heading, justify="left" if heading == "To run" else "right")
    for stage, number, price in [*cost.stages, ("all", sum(number for _, number, _ in cost.stages), cost.total)]:
        hours = None if price.flop is None else cost.device.hours(price.flop)
        table.add_row(
            Text(stage), str(number), _or_unknown(price.tokens, ",.0f"), _or_unknown(price.flop, ".1e"),
            _or_unknown(hours, ",.2f"), _or_unknown(None if price.bytes is None else price.bytes / 1e9, ",.2f"),
        )  # fmt: skip
    console = Console()
    console.print(steps)
    console.print(table)
    for note in cost.notes:
        console.print(Text(note))
    for sentence in cost.missing:
        console.print(Text(f"Missing: {sentence}", style="yellow"))


def _or_unknown(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def _show(output: Path, manifest: Mapping[str, Any]) -> None:
    console = Console()
    console.print(Text(f"{manifest['stage']} → {output}", style="bold"))
    for key, value in manifest["measures"].items():
        if key == "checks":
            console.print(Text(f"  {len(value)} invariants hold"))
        elif key not in _LONG:
            console.print(Text(f"  {key}: {_plain(value)}"))


def _show_corpus(
    output: Path, report: Mapping[str, Any], headings: Sequence[str], rows: Sequence[Sequence[str | int]]
) -> None:
    table = Table(box=None, header_style="bold")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(_plain(value)) for value in row))
    measures = report["measures"]
    console = Console()
    console.print(Text(f"{report['stage']} → {output}", style="bold"))
    console.print(table)
    for what in ("documents", "characters"):
        kept = measures.get(f"kept_{what}")
        written = (
            f"{measures[what]:,}" if kept is None else f"{kept:,} of {measures[what]:,} ({kept / measures[what]:.1%})"
        )
        console.print(Text(f"  {what}: {written}"))


def _show_data(output: Path, report: Mapping[str, Any]) -> None:
    console = Console()
    console.print(Text(f"{report['output']['rows']:,} examples → {output}", style="bold"))
    for key, value in report["counts"].items():
        console.print(Text(f"  {key.replace('_', ' ')}: {value:,}"))
    if report["grades"]:
        console.print(Text(f"  grades: {_plain(report['grades'])}"))
    if report["copies"]:
        console.print(Text(f"  texts to copy: {_plain(report['copies'])}"))
    table = Table(header_style="bold")
    for number, heading in enumerate(("source", "examples", "words (median)", "scripts", "other script", "refusals")):
        table.add_column(heading, justify="left" if number in (0, 3) else "right")
    for source, found in report["data"].items():
        scripts = ", ".join(f"{name} {share:.0%}" for name, share in found["scripts"].items())
        table.add_row(
            Text(source), f"{found['examples']:,}", f"{found['words']['median']:g}", Text(scripts),
            f"{found['other_script_than_prompt']:,}", f"{found['refusals']:,}",
        )  # fmt: skip
    console.print(table)


@contextmanager
def _progress(title: str) -> Iterator[Progress]:
    """A bar on stderr, and a way to say how far something is."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    times = (TimeElapsedColumn(), TextColumn("·"), TimeRemainingColumn(), TextColumn("left"))
    with Bar(*columns, *times, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)

        def report(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        yield report


def _settings(pairs: Sequence[str] | None) -> dict[str, Any]:
    """`KEY=VALUE` pairs as settings of an engine; values are YAML scalars, `model_args.KEY` goes one level down."""
    import yaml

    found: dict[str, Any] = {}
    for pair in pairs or ():
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{pair!r} is not of the form KEY=VALUE.")
        try:
            scalar = yaml.safe_load(value)
        except yaml.YAMLError:
            scalar = value
        outer, dot, inner = key.replace("-", "_").partition(".")
        if dot:
            found.setdefault(outer, {})[inner] = scalar
        else:
            found[outer] = scalar
    return found


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
