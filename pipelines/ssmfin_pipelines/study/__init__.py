"""The study file: its schema, its reader, and its JSON Schema."""

from ssmfin_pipelines.study.reading import read_study, study_from
from ssmfin_pipelines.study.schema import Study

__all__ = ["Study", "read_study", "study_from"]
