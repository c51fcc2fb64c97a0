"""Owns the study file: its sections, every setting with its unit and default, and what a study turns into."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ssmfin.data.loading import DataSpec
from ssmfin.evaluation.splits import WalkForward
from ssmfin.models.interface import Target
from ssmfin.models.registry import BENCHMARKS
from ssmfin_pipelines.study.checks import cross_records, distinct
from ssmfin_pipelines.study.entries import Features, Models
from ssmfin_pipelines.study.names import Name
from ssmfin_pipelines.study.nested import nested_error, section
from ssmfin_pipelines.study.tree import dump

if TYPE_CHECKING:
    from ssmfin.data.panel import Panel
    from ssmfin.evaluation.cross_section import CrossSection
    from ssmfin.evaluation.experiment import Experiment
    from ssmfin.evaluation.judging import Scoring
    from ssmfin.evaluation.recalibration import Recalibration


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StudyTarget(_Section):
    """What is forecast at every origin t: an aggregate of one column over t+1 .. t+h, h in rows of the id."""

    column: str = Field(min_length=1, description="Value column to forecast, such as a variance (decimal, per day).")
    transform: Literal["log", "none"] = Field("log", description="Scale on which linear and boosted models are fitted.")
    horizons: Annotated[tuple[Annotated[int, Field(ge=1, le=10_000)], ...], AfterValidator(distinct("horizons"))] = (
        Field((1, 5, 22), min_length=1, description="Horizons h in rows of the id's own calendar (days of daily data).")
    )
    aggregate: Literal["mean", "sum", "last"] = Field("mean", description="Aggregate over t+1 .. t+h.")
    bias_correction: Literal["lognormal", "none"] = Field(
        "lognormal",
        description="Under a log: exp(mu + s2 / 2) with s2 the residual variance of the training window, or exp(mu).",
    )

    def target(self) -> Target:
        return Target(**{name: getattr(self, name) for name in type(self).model_fields})


class StudyCrossSection(_Section):
    """How the ids of one date are ranked against each other, for targets such as returns."""

    groups: int = Field(
        10, ge=2, description="The top and the bottom 1/groups of the ids make the spread; 10: deciles."
    )
    least_ids: int = Field(20, ge=4, description="Dates on which fewer ids were forecast are left out.")

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        self.setting()
        return self

    def setting(self) -> CrossSection:
        from ssmfin.evaluation.cross_section import CrossSection

        return CrossSection(groups=self.groups, least_ids=self.least_ids)


class StudyRecalibration(_Section):
    """How quantiles learn from their own misses (adaptive conformal inference), from matured outcomes alone."""

    rate: float = Field(
        0.05, gt=0, le=1, description="Step of a quantile's normal score after each outcome; 0.02 learns slower."
    )
    bound: float = Field(1.0, gt=0, le=5, description="Furthest that a quantile's normal score moves.")

    def setting(self) -> Recalibration:
        from ssmfin.evaluation.recalibration import Recalibration

        return Recalibration(rate=self.rate, bound=self.bound)


class Evaluate(_Section):
    """How forecasts are compared. All losses: lower is better."""

    losses: Annotated[tuple[Literal["qlike", "mse", "mae"], ...], AfterValidator(distinct("losses"))] = Field(
        ("qlike", "mse", "mae"), min_length=1, description="Losses; the first one decides the verdict."
    )
    reference: Name = Field("log_har", description="Model that the others are measured against.")
    mcs_size: float = Field(0.1, gt=0, lt=1, description="Size of the model confidence set's test (0.1: a 90 % set).")
    cross_section: StudyCrossSection | None = Field(
        None, description="Rank IC and long-short spread across the ids of each date; default: none of it."
    )

    recalibrate: StudyRecalibration | None = Field(
        None,
        description="Let quantiles learn from matured outcomes, fold after fold; {} for the usual settings; default: "
        "they stay as the models gave them.",
    )

    def scoring(self) -> Scoring:
        from ssmfin.evaluation.judging import Scoring

        cross_section = None if self.cross_section is None else self.cross_section.setting()
        recalibrate = None if self.recalibrate is None else self.recalibrate.setting()
        return Scoring(self.losses, self.reference, self.mcs_size, cross_section, recalibrate)


class Execution(_Section):
    """How tasks are scheduled. Nothing here changes a number."""

    backend: Literal["inline", "local", "ray"] = Field(
        "local",
        description="inline: this process; local: several processes; ray: a Ray cluster, of RAY_ADDRESS or of this "
        "machine (pip install 'ssmfin[ray]').",
    )
    workers: Literal["auto"] | Annotated[int, Field(ge=1, le=1024)] = Field(
        "auto", description="Processes, or actors of Ray; auto: one for each core of this machine."
    )
    on_error: Literal["record", "stop"] = Field(
        "record", description="A failing task is recorded and the others go on, or the run stops."
    )


class Output(_Section):
    """What is written, and where."""

    directory: str = Field("runs", min_length=1, description="Folder of the run folders, relative to the current one.")
    report: Literal["html", "none"] = Field(
        "html", description="html: one self-contained report.html; none: no report."
    )


_MAY_BE_EMPTY = ("walk_forward", "models", "evaluate", "execution", "output")


def with_benchmarks(values: Any) -> Any:
    """A study's values with every benchmark there, its kind its name unless it says otherwise.

    A section below which everything is commented out counts as left out. Not so `features`: whether none or the default
    was meant cannot be told.
    """
    if not isinstance(values, Mapping):
        return values
    values = {key: value for key, value in values.items() if value is not None or key not in _MAY_BE_EMPTY}
    given = values.get("benchmarks")
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        return values
    filled = {}
    for name in [*BENCHMARKS, *(name for name in given if name not in BENCHMARKS)]:
        entry = given.get(name)
        entry = {} if entry is None else entry
        filled[name] = {"kind": name, **entry} if isinstance(entry, Mapping) else entry
    return {**values, "benchmarks": filled}


class Study(_Section):
    """A study: data, target, folds, features, models, and how they are compared; all defaults in."""

    name: Name = Field(
        description="Name of the study: letters, digits, '-' and '_'; begins the name of the run folder."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed that all seeds of tasks are derived from.")
    data: Annotated[DataSpec, BeforeValidator(section(DataSpec))] = Field(
        description="Where the panel comes from. Relative paths: from the current folder, else from the study's."
    )
    target: StudyTarget = Field(description="What is forecast.")
    walk_forward: Annotated[WalkForward, BeforeValidator(section(WalkForward))] = Field(
        default_factory=WalkForward, description="Training windows, test folds and refits, in dates of the panel."
    )
    features: Features = Field(
        default_factory=lambda: {"har": {"kind": "har_lags"}},
        validate_default=True,
        description="Features by name; default: `har: {kind: har_lags}`.",
    )
    models: Models = Field(default_factory=dict, description="Models by name, run beside the benchmarks.")
    benchmarks: Models = Field(
        default_factory=dict,
        validate_default=True,
        description=f"{', '.join(BENCHMARKS)} always run; tune them or add others here. `kind` defaults to the name.",
    )
    evaluate: Evaluate = Field(default_factory=Evaluate, description="Losses and tests.")
    execution: Execution = Field(default_factory=Execution, description="How the tasks are run; changes no number.")
    output: Output = Field(default_factory=Output, description="Where the run is written.")

    @model_validator(mode="before")
    @classmethod
    def _always_benchmarks(cls, values: Any) -> Any:
        return with_benchmarks(values)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if records := cross_records({name: getattr(self, name) for name in type(self).model_fields}):
            raise nested_error(type(self), records)
        return self

    @property
    def entries(self) -> Models:
        """All models, benchmarks first."""
        return {**self.benchmarks, **self.models}

    def load(self) -> Panel:
        """The panel of the study, checked.

        Raises:
            InputError: the data breach the panel's contract.
        """
        used = {
            column: f"features.{name}.{key}"
            for name, spec in self.features.items()
            for key in ("column", "columns")
            if key in spec.model_fields_set and key in type(spec).model_fields
            for column in _texts(getattr(spec, key))
        }
        return self.data.load(target=self.target.column, positive=self.target.transform == "log", used=used)

    def experiment(self, panel: Panel) -> Experiment:
        """What fixes every forecast of the study, over `panel`."""
        from ssmfin.evaluation.experiment import Experiment

        return Experiment.of(
            panel,
            self.target.target(),
            self.walk_forward,
            dict(self.features),
            {name: entry.entry() for name, entry in self.entries.items()},
            reference=self.evaluate.reference,
            seed=self.seed,
        )

    def resolved(self) -> dict[str, Any]:
        """The study as plain data with every default filled in; `Study.model_validate` of it is equal to this study."""
        values = self.model_dump(mode="json")
        values["walk_forward"].pop("horizons", None)  # the target has them
        return values

    def to_yaml(self) -> str:
        """`resolved()` as YAML text."""
        return dump(self.resolved())


def _texts(value: Any) -> list[str]:
    """The names in a setting that holds one, several or none."""
    return [value] if isinstance(value, str) else [item for item in value or () if isinstance(item, str)]
