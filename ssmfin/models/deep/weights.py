"""Owns fitted deep models on disk: a folder with weights.safetensors and config.json beside it, no pickle.

The weights hold all that was learned as tensors: networks, base, standardisation, head. The configuration says in plain
text what they belong to. Imports torch.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ssmfin.errors import InputError
from ssmfin.models.deep.base import Base
from ssmfin.models.deep.fitting import bound_of, network_of
from ssmfin.models.deep.heads import HEADS, Head
from ssmfin.models.deep.prediction import FittedDeep, Group
from ssmfin.models.deep.sequences import InputScale, Reader
from ssmfin.models.deep.training import choose_device
from ssmfin.models.interface import FloatArray, Target

if TYPE_CHECKING:
    from ssmfin.models.deep.forecaster import DeepForecaster

FORMAT = "ssmfin-deep-1"
WEIGHTS, CONFIG = "weights.safetensors", "config.json"


def save_fitted(fitted: FittedDeep, folder: Path) -> None:
    """Write both files, making the folder."""
    from safetensors.torch import save_file

    scale = fitted.reader.scale
    arrays: dict[str, FloatArray] = {f"base.{name}": value for name, value in fitted.base.arrays().items()}
    arrays |= {"scale.pooled": scale.pooled, "scale.scale": scale.scale}
    arrays |= {} if fitted.event_level is None else {"event_level": fitted.event_level}
    arrays |= {f"scale.centre.{fitted.ids.index(name)}": centre for name, centre in scale.centres.items()}
    tensors: dict[str, torch.Tensor] = {}
    groups = []
    for number, group in enumerate(fitted.groups):
        constants = group.head.constants()
        arrays |= {f"group.{number}.head.{k}": v for k, v in constants.items() if isinstance(v, np.ndarray)}
        arrays[f"group.{number}.credibility"] = group.credibility
        plain = {k: v for k, v in constants.items() if not isinstance(v, np.ndarray)}
        groups.append({"ids": None if group.ids is None else sorted(group.ids), "head": plain})
        for member, network in enumerate(group.networks):
            tensors |= {f"group.{number}.network.{member}.{k}": v for k, v in network.state_dict().items()}
    tensors |= {name: torch.from_numpy(np.array(value, dtype=np.float64)) for name, value in arrays.items()}
    config = {
        "format": FORMAT,
        "kind": fitted.forecaster.kind,
        "parameters": fitted.forecaster.model_dump(mode="json"),
        "target": asdict(fitted.target),
        "ids": fitted.ids,
        "feature_names": fitted.feature_names,
        "numbers": fitted.reader.numbers,
        "groups": groups,
        "notes": fitted.notes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, str(folder / WEIGHTS))
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_fitted(folder: Path, kind: type[DeepForecaster] | None = None) -> FittedDeep:
    """What `save_fitted` wrote.

    Args:
        kind: the class that was fitted; default: the registry's.
    Raises:
        InputError: a file is missing, is not one of ours, or is of another kind.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        tensors = load_file(str(folder / WEIGHTS))
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(f"{folder} holds no fitted model, {error}; save one with FittedDeep.save.") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise InputError(f"{folder / CONFIG} is not of format {FORMAT}; save the model with FittedDeep.save.")
    model = _forecaster(config, kind)
    ids, names = tuple(config["ids"]), tuple(config["feature_names"])
    target = Target(**(config["target"] | {"horizons": tuple(config["target"]["horizons"])}))
    arrays = {name: value.numpy() for name, value in tensors.items() if ".network." not in name}
    log = target.transform == "log"
    base = Base.restored(model.residual, log, ids, _under(arrays, "base."))
    centres = {ids[int(k)]: centre for k, centre in _under(arrays, "scale.centre.").items()}
    dtype = torch.float64 if model.precision == "float64" else torch.float32
    groups = []
    for number, about in enumerate(config["groups"]):
        head: Head = HEADS[model.head](**(about["head"] | _under(arrays, f"group.{number}.head.")))
        members = [_under(tensors, f"group.{number}.network.{member}.") for member in range(model.ensemble)]
        networks = []
        for state in members:
            with torch.random.fork_rng(devices=[]):
                network = network_of(
                    model,
                    features=len(names),
                    horizons=len(target.horizons),
                    head=head,
                    ids=_known_ids(state),
                    bound=bound_of(model),
                ).to(choose_device(model.device), dtype)
            network.load_state_dict(state)
            networks.append(network.eval())
        own = None if about["ids"] is None else frozenset(about["ids"])
        groups.append(Group(own, networks, head, arrays[f"group.{number}.credibility"]))
    scale = InputScale(centres, arrays["scale.pooled"], arrays["scale.scale"])
    numbers = {name: int(number) for name, number in config["numbers"].items()}
    return FittedDeep(
        forecaster=model,
        target=target,
        ids=ids,
        feature_names=names,
        base=base,
        reader=Reader(scale, numbers, model.sessions == "reset", dtype),
        groups=groups,
        event_level=arrays.get("event_level"),
        notes=config["notes"],
    )


def _forecaster(config: dict[str, Any], kind: type[DeepForecaster] | None) -> DeepForecaster:
    from ssmfin.models.deep.forecaster import DeepForecaster
    from ssmfin.models.registry import forecaster_class

    found = forecaster_class(config["kind"]) if kind is None else kind
    if not issubclass(found, DeepForecaster) or found.kind != config["kind"]:
        raise InputError(f"the stored model is of kind {config['kind']!r}, not {found.kind!r}; load it with that one.")
    return found(**config["parameters"])


def _under(values: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in values.items() if name.startswith(prefix)}


def _known_ids(state: dict[str, torch.Tensor]) -> int:
    return len(state["identity.weight"]) - 1 if "identity.weight" in state else 0
