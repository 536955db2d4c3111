"""Adapters in files of `peft`: adapter_config.json and adapter_model.safetensors in one folder.

`peft.PeftModel.from_pretrained(model, folder)` loads what is written here, for a model made as ours was before it got
its adapters. The head, which is trained whole, is in the file under its own names. A pickle is never opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from coterie.core.errors import Mistake, few, reason
from coterie.core.files import write_atomic
from coterie.models.lora import find_adapters
from coterie.models.lora_layers import A, B
from coterie.models.model_parts import head_names

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What names in such a file begin with."""

_LAYER = re.compile(r"(.*?)\.?lora_(?:(A|B)\.weight|embedding_(A|B))")
_REFUSED = ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern", "lora_bias", "megatron_config", "use_qalora")
"""Entries of the configuration that say that the adapters compute something else."""


@dataclass(frozen=True)
class Adapter:
    """Adapters as a folder holds them.

    Attributes:
        folder: where.
        rank, alpha: of all layers.
        targets: the names of the layers.
        values: the factors and the parts of the head, by the names of our `state_dict`.
    """

    folder: Path
    rank: int
    alpha: float
    targets: tuple[str, ...]
    values: Mapping[str, Tensor]

    def load_into(self, model: nn.Module) -> None:
        """Load the adapters, and the head where it has the model's size, into a model with such adapters, in place.

        A head of another size is for other classes: the model keeps its own.

        Raises:
            Mistake: they are another model's.
        """
        wanted, head = model.state_dict(), head_names(model)
        fitting = {n: v for n, v in self.values.items() if n not in head or wanted[n].shape == v.shape}
        unknown = sorted(fitting.keys() - wanted.keys())
        factors = {f"{layer}.{factor}" for layer in find_adapters(model) for factor in (A, B)}
        other = [name for name in sorted(factors | fitting.keys()) if name not in unknown and name not in fitting]
        shapes = [n for n, v in fitting.items() if n in wanted and wanted[n].shape != v.shape]
        outside = [n for n in fitting if n not in factors | head]
        if unknown or other or shapes or outside:
            what = few([*unknown, *other, *shapes, *outside])
            raise _mistake(self.folder, f"it does not fit the model at {what}; name the model that it was made for")
        model.load_state_dict(dict(fitting), strict=False)


def read_adapter(folder: Path) -> Adapter:
    """Read the adapters in a folder.

    Raises:
        Mistake: a file is missing or damaged, or the adapters are of another kind than ours.
    """
    config, file = _read_config(folder), folder / WEIGHTS
    try:
        values = safetensors.torch.load_file(file)
    except FileNotFoundError as error:
        sentence = f"it has no {WEIGHTS}; a pickle is never opened, so save the adapter as safetensors"
        raise _mistake(folder, sentence) from error
    except (OSError, SafetensorError, ValueError) as error:
        raise _mistake(folder, f"{WEIGHTS} cannot be read ({reason(error)})") from error
    named: dict[str, Tensor] = {}
    targets: dict[str, None] = {}
    for name, value in values.items():
        found = _LAYER.fullmatch(name.removeprefix(PREFIX))
        if found is None:
            named[name.removeprefix(PREFIX)] = value
            continue
        layer, factor = found[1], found[2] or found[3]
        targets[layer] = None
        named[f"{layer}.lora_{factor}"] = value
    ranks = {value.shape[0] for name, value in named.items() if name.endswith(f".{A}")}
    if ranks != {config["r"]} or not targets:
        held = few([str(rank) for rank in sorted(ranks)]) or "none"
        raise _mistake(folder, f"its factors have the rank {held}, and its configuration says {config['r']}")
    broken = [name for name, value in named.items() if not bool(value.isfinite().all())]
    if broken:
        raise _mistake(folder, f"its {few(broken)} holds numbers that are not finite")
    return Adapter(folder, config["r"], float(config["lora_alpha"]), tuple(targets), named)


def _read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of adapters that compute what ours do."""
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError as error:
        raise _mistake(folder, f"it has no {CONFIG}; name a folder that peft has written") from error
    except (OSError, ValueError, RecursionError) as error:
        raise _mistake(folder, f"{CONFIG} cannot be read ({reason(error)})") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _mistake(folder, "it is no LoRA adapter; other kinds cannot be trained here")
    other = [name for name in _REFUSED if config.get(name)]
    other += ["bias"] if config.get("bias", "none") != "none" else []
    if other:
        raise _mistake(folder, f"it uses {few(other)}, which adapters here do not have; merge it with peft instead")
    is_number = type(config.get("r")) is int and type(config.get("lora_alpha")) in (int, float)
    if not (is_number and config["r"] > 0 and config["lora_alpha"] > 0):
        raise _mistake(folder, f"{CONFIG} needs r and lora_alpha, both above 0")
    return config


def write_adapter(model: nn.Module, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write the adapters of a model, and its head, into a folder.

    The same weights always give the same bytes.

    Args:
        model: the model with adapters; its own weights do not matter.
        weights: by the names of its `state_dict`.
        folder: made where it is absent.

    Raises:
        OSError: it cannot be written.
    """
    layers, values = find_adapters(model), {}
    for name, layer in layers.items():
        for factor, called in zip((A, B), layer.lora_kind.in_file, strict=True):
            values[f"{PREFIX}{name}.{called}"] = weights[f"{name}.{factor}"]
    head = sorted(n for n in head_names(model) if n in weights and n.rpartition(".")[0] not in layers)
    values |= {f"{PREFIX}{name}": weights[name] for name in head}
    plain = {name: value.detach().to("cpu", torch.float32).contiguous().clone() for name, value in values.items()}
    config = json.dumps(_config(model, layers, head), indent=2, sort_keys=True)
    write_atomic(folder / WEIGHTS, safetensors.torch.save(plain, {"format": "pt"}))
    write_atomic(folder / CONFIG, config.encode() + b"\n")


def _config(model: nn.Module, layers: Mapping[str, Any], head: list[str]) -> dict[str, Any]:
    """Return what `peft` has to know. It matches target modules by the ends of their names, or by one pattern."""
    first = next(iter(layers.values()))
    rank = first.lora_A.shape[0]
    names = [name for name, _ in model.named_modules()]
    ambiguous = any(name.endswith(f".{target}") and name not in layers for name in names for target in layers)
    pattern = "|".join(re.escape(name) for name in layers)
    alpha = first.lora_scale * rank
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": getattr(model, "checkpoint", None),
        "r": rank,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "target_modules": pattern if ambiguous else list(layers),
        "modules_to_save": list(dict.fromkeys(name.rpartition(".")[0] for name in head)) or None,
        "fan_in_fan_out": any(type(layer).__name__ == "Conv1D" for layer in layers.values()),
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }


def _mistake(folder: Path, sentence: str) -> Mistake:
    return Mistake(sentence, key="adapter_weights", value=folder)
