"""Owns the comparison of run folders: what they hold, what they are called, in what their studies differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ssmfin.errors import InputError
from ssmfin.evaluation.claims import Combinations
from ssmfin.evaluation.common_rows import NEEDED, RunForecasts
from ssmfin.evaluation.judging import Scoring
from ssmfin.evaluation.run_comparison import RunComparison, compare_forecasts
from ssmfin.evaluation.wording import listed
from ssmfin_pipelines.manifest import read_manifest
from ssmfin_pipelines.study_differences import Difference, study_differences

LEAST_HASH = 4  # digits of a run's hash that a label has at least
LONGEST = 24  # characters of a label: tables have one column for it


@dataclass(frozen=True)
class Comparison:
    """What several run folders say together.

    Attributes:
        runs: label -> folder, as it was named. result: what the forecasts say.
        differences: keys of the studies that differ.
        other_data, other_program: in what the data or the program differ, in words; "" where they are the same.
    """

    runs: dict[str, Path]
    result: RunComparison
    differences: tuple[Difference, ...]
    other_data: str
    other_program: str

    def render(self, width: int = 100) -> str:
        """The comparison as text for a terminal of so many columns."""
        from ssmfin_pipelines.comparison_text import comparison_text

        return comparison_text(self, width)

    def __str__(self) -> str:
        return self.render()


def compare_runs(paths: Sequence[str | Path], labels: Sequence[str] = ()) -> Comparison:
    """Compare the forecasts of several runs on their common rows, by the losses and the reference of the first.

    Args:
        paths: run folders, two or more; the first is the one that the others are held against.
        labels: what the runs are called, one for each, in order; none: short names made from the folders'.
    Raises:
        InputError: a folder is not a finished run, a label does not fit, the targets differ (says how), or no row is
            common.
    """
    folders = [Path(path) for path in paths]
    if len(folders) < 2:
        raise InputError(f"a comparison needs two runs or more, {len(folders)} given; name their folders.")
    places = [folder.resolve() for folder in folders]
    for number, folder in enumerate(folders):
        if places[number] in places[:number]:
            raise InputError(f"a run is named twice, {folder}; name different folders.")
    _check_labels(labels, len(folders))
    manifests = [read_manifest(folder) for folder in folders]
    names = list(labels) or short_labels([folder.resolve() for folder in folders])
    runs = [_forecasts(*each) for each in zip(names, folders, manifests, strict=True)]
    told = dict(zip(names, manifests, strict=True))
    evaluate = manifests[0]["config"]["evaluate"]
    scoring = Scoring(tuple(evaluate["losses"]), evaluate["reference"], evaluate["mcs_size"])
    return Comparison(
        runs=dict(zip(names, folders, strict=True)),
        result=compare_forecasts(runs, scoring, seed=manifests[0]["seeds"]["study"]),
        differences=study_differences({label: manifest["config"] for label, manifest in told.items()}),
        other_data=_other_data(told),
        other_program=_other_program(told),
    )


def short_labels(folders: Sequence[Path]) -> list[str]:
    """Short, distinct names of run folders: as much of `<name>-<hash>` as tells them apart.

    >>> short_labels([Path("runs/vol-0a1b2c3d4e"), Path("runs/vol-9f8e7d6c5b")])
    ['0a1b', '9f8e']
    >>> short_labels([Path("runs/sp500-vol-0a1b2c3d4e"), Path("runs/sp500-short-9f8e7d6c5b"), Path("base")])
    ['sp500-vol', 'sp500-short', 'base']
    >>> short_labels([Path("runs/sp500-vol-0a1b2c3d4e"), Path("runs/sp500-short-9f8e7d6c5b")])
    ['vol', 'short']
    """
    parts = [re.fullmatch(r"(?s)(.+)-([0-9a-f]{10})", folder.name) for folder in folders]
    stems = [found[1] if found else folder.name for found, folder in zip(parts, folders, strict=True)]
    hashes = [found[2] if found else "" for found in parts]
    length = LEAST_HASH
    while length < 10 and len({(s, h[:length]) for s, h in zip(stems, hashes, strict=True)}) < len(stems):
        length += 1
    names = [s if stems.count(s) == 1 else f"{s}-{h[:length]}".rstrip("-") for s, h in zip(stems, hashes, strict=True)]
    words = [re.split(r"(?<=[-_.])", name) for name in names]
    while len({each[0] for each in words}) == 1 and all(len(each) > 1 for each in words):
        words = [each[1:] for each in words]
    names = ["".join(c if c.isprintable() and c != ":" else "_" for c in "".join(each))[:LONGEST] for each in words]
    if len(set(names)) < len(names):
        names = [f"{name[: LONGEST - 4]}#{number}" for number, name in enumerate(names, start=1)]
    return names


def _check_labels(labels: Sequence[str], runs: int) -> None:
    if labels and len(labels) != runs:
        given = f"{len(labels)} times" if len(labels) > 1 else "once"
        raise InputError(
            f"--label is given {given} for {runs} runs, {', '.join(labels)}; give one for each run, in order, or none."
        )
    for label in labels:
        if not 0 < len(label.strip()) == len(label) <= LONGEST or not label.isprintable() or ":" in label:
            raise InputError(
                f"--label is {label!r}, no short name; use 1 to {LONGEST} characters without a colon or outer spaces."
            )
    if len(set(labels)) < len(labels):
        raise InputError(f"--label names runs alike, {', '.join(labels)}; give each run its own.")


def _forecasts(label: str, folder: Path, manifest: Mapping[str, Any]) -> RunForecasts:
    try:
        predictions = pl.read_parquet(folder / "predictions.parquet")
    except (OSError, pl.exceptions.PolarsError) as error:
        raise InputError(
            f"predictions.parquet cannot be read, {folder} ({error}); run the study of that run again."
        ) from None
    missing = [name for name in NEEDED if name not in predictions.columns]
    if missing:
        raise InputError(f"predictions.parquet lacks {', '.join(missing)}, {folder}; run the study of that run again.")
    models = manifest["models"]
    return RunForecasts(
        label=label,
        predictions=predictions,
        target=manifest["config"]["target"],
        families={name: facts["family"] for name, facts in models.items()},
        seconds={name: (facts["fit_seconds"], facts["predict_seconds"]) for name, facts in models.items()},
        combined=Combinations(
            {name: tuple(facts["members"]) for name, facts in models.items() if facts.get("members")},
            {name: facts["without"] for name, facts in models.items() if facts.get("without")},
        ),
    )


def _other_data(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """In what the panels differ: their size, else their values; "" where they are the same, to the bit."""
    data = {label: manifest["data"] for label, manifest in manifests.items()}
    if len({facts["fingerprint"] for facts in data.values()}) == 1:
        return ""
    sizes = {
        label: f"{facts['rows']:,} rows of {_ids(len(facts['ids']))}, {facts['first']} to {facts['last']}"
        for label, facts in data.items()
    }
    if len(set(sizes.values())) == 1:
        return f"values or columns differ, in the same {next(iter(sizes.values()))}"
    return "; ".join(f"{label} {size}" for label, size in sizes.items())


def _ids(count: int) -> str:
    return f"{count:,} id{'s' * (count != 1)}"


def _other_program(manifests: Mapping[str, Mapping[str, Any]]) -> str:
    """In what the programs that computed the runs differ: versions of packages, else the code of ssmfin itself."""
    environments = {label: manifest["environment"] for label, manifest in manifests.items()}
    if len({found["code_version"] for found in environments.values()}) == 1:
        return ""
    versions = {label: found["packages"] for label, found in environments.items()}
    differing = []
    for package in dict.fromkeys(name for packages in versions.values() for name in packages):
        held = {label: packages.get(package, "absent") for label, packages in versions.items()}
        if len(set(held.values())) > 1:
            differing.append(f"{package} {listed(f'{version} in {label}' for label, version in held.items())}")
    return "; ".join(differing) or "the code of ssmfin"
