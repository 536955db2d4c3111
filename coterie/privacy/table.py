"""What a run promises about privacy, as plain options: the table [privacy], and `coterie.federate(privacy=...)`.

This file needs no PyTorch, so that a file's settings can be read without it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from coterie.core.errors import Mistake, require
from coterie.core.kinds import Count, FractionBelowOne, Positive, PositiveFraction


@dataclass(frozen=True)
class Privacy:
    """[privacy]: whom a differential-privacy guarantee protects, and how large it is.

    Attributes:
        unit: "client": the model hardly depends on whether any one client took part, whatever it holds or sends.
            "example": nor on any one example. "none": no guarantee.
        clip_norm: C > 0. With unit = "client", the largest Euclidean norm of a client's whole update, over all its
            parts together; with `clip` = "adaptive" that of the first round. With "example", of an example's gradient.
        clip_norms: instead of `clip_norm`, a bound for each part of the update by its name, such as
            {delta = 1.0, statistics = 0.1}. Each part then gets noise in proportion to its own bound.
        clip: "fixed", or "adaptive": the bound follows the `target_quantile` of the norms.
        target_quantile: the share of clients whose updates shall be left as they are; 0.5 unless given.
        clip_lr: how fast an adaptive bound moves; 0.2 unless given.
        count_noise: the standard deviation of the noise on the count of updates within the bound; by default a
            twentieth of the cohort. The noise on updates grows a little, so that both together cost the same epsilon.
        noise_multiplier: z > 0; the noise on the sum of updates, or on the sum of a step's gradients, has the standard
            deviation z C in every coordinate.
        epsilon: the largest privacy loss of the planned rounds. Without `noise_multiplier`, the noise is chosen for it.
        delta: of the guarantee; by default N^-1.1 for N clients, or for the N examples of the largest client.
        where: "server": the server adds the noise, so it is trusted. "clients": each client adds its share.
        tolerated_dropouts: with where = "clients", the share of a cohort that may be missing: the others' noise still
            suffices, and a round with fewer changes nothing.
        secure_sum: whether the server learns the sum of the updates alone; with any `unit`, also "none".
        secure_bits: with `secure_sum`, the bits of a number on its way, a multiple of 8 up to 64.
        secure_limit: with `secure_sum`, the largest absolute value of a number of an update. With more clients or a
            larger limit, as many bits leave coarser steps; `coterie.privacy.fixed_point` has the formula. With
            unit = "client" the bound and the noise give it.
        secure_threshold: with `secure_sum`, the share of a cohort that must stay until the sum is opened.
        noise: where the randomness of the noise and of the cohorts comes from: "secret", a secret of the run folder; or
            "rng_seed", for experiments that repeat anywhere, without a guarantee towards whoever knows the seed.
        statistics_clip: with unit = "example" and fbn, how far an example's statistics may lie from a BatchNorm
            layer's, in standard deviations, as the root mean square over its channels; 1 unless given.
        statistics_share: with unit = "example" and fbn, the share of a step's privacy loss that its statistics get;
            0.1 unless given.

    Raises:
        Mistake: a value is out of its range, or two keys contradict one another.
    """

    unit: Literal["none", "client", "example"] = "none"
    clip_norm: Positive | None = None
    clip_norms: dict[str, float] | None = None
    clip: Literal["fixed", "adaptive"] = "fixed"
    target_quantile: PositiveFraction | None = None
    clip_lr: Positive | None = None
    count_noise: Positive | None = None
    noise_multiplier: Positive | None = None
    epsilon: Positive | None = None
    delta: Positive | None = None
    where: Literal["server", "clients"] = "server"
    tolerated_dropouts: FractionBelowOne = 0.0
    secure_sum: bool = False
    noise: Literal["secret", "rng_seed"] = "secret"
    secure_bits: Count = 40
    secure_limit: Positive = 1024.0
    secure_threshold: PositiveFraction = 2 / 3
    statistics_clip: Positive | None = None
    statistics_share: FractionBelowOne | None = None

    def __post_init__(self) -> None:
        require("unit", self.unit, self.unit in ("none", "client", "example"), '"none", "client" or "example"')
        self._check_secure_sum()
        if self.unit == "none":
            self._refuse_without_unit()
        else:
            self._check_ranges()
            self._check_unit()
            self._check_bounds()

    def _check_secure_sum(self) -> None:
        """Refuse numbers of a secure sum out of their range, or without one."""
        for key in _OF_SECURE_SUM:
            value = getattr(self, key)
            require(key, value, self.secure_sum or value == _DEFAULTS[key], "left out unless `secure_sum` = true")
        if self.secure_sum and self.unit == "client":
            require("clip", self.clip, self.clip == "fixed", '"fixed" with `secure_sum`')
            is_free = self.secure_limit == _DEFAULTS["secure_limit"]
            require("secure_limit", self.secure_limit, is_free, "left out: the bound and the noise give it")
        bits, limit, threshold = self.secure_bits, self.secure_limit, self.secure_threshold
        require("secure_bits", bits, bits in range(16, 65, 8), "16, 24, 32, 40, 48, 56 or 64")
        require("secure_limit", limit, 1 <= limit < 2.0**100, "1 or more, and no larger than 2^100")
        require("secure_threshold", threshold, 0.5 <= threshold <= 1, "a share of the cohort, from 0.5 to 1")

    def _refuse_without_unit(self) -> None:
        """Refuse keys that would do nothing: a run must not look protected that is not."""
        for key, default in _DEFAULTS.items():
            if getattr(self, key) != default and key not in ("secure_sum", *_OF_SECURE_SUM):
                value = getattr(self, key)
                raise Mistake('without `unit` it protects nobody; set `unit` = "client"', key=key, value=value)

    def _check_ranges(self) -> None:
        """Refuse numbers out of their range."""
        for key in ("clip_norm", "clip_lr", "count_noise", "noise_multiplier", "epsilon", "statistics_clip"):
            value = getattr(self, key)
            require(key, value, value is None or 0 < value < float("inf"), "a number above 0")
        for name, bound in (self.clip_norms or {}).items():
            require(f"clip_norms.{name}", bound, 0 < bound < float("inf"), "a number above 0")
        share = self.statistics_share
        require("statistics_share", share, share is None or 0 < share < 1, "above 0 and below 1")
        delta, quantile, dropouts = self.delta, self.target_quantile, self.tolerated_dropouts
        require("delta", delta, delta is None or 0 < delta < 1, "above 0 and below 1, and well below 1 / clients")
        require("target_quantile", quantile, quantile is None or 0 < quantile <= 1, "above 0 and at most 1")
        require("tolerated_dropouts", dropouts, 0 <= dropouts < 1, "a number from 0 to below 1")
        require("clip", self.clip, self.clip in ("fixed", "adaptive"), '"fixed" or "adaptive"')
        require("where", self.where, self.where in ("server", "clients"), '"server" or "clients"')
        require("noise", self.noise, self.noise in ("secret", "rng_seed"), '"secret" or "rng_seed"')

    def _check_unit(self) -> None:
        """Refuse keys of the other unit."""
        theirs = _OF_EXAMPLES if self.unit == "client" else _OF_CLIENTS
        for key in theirs:
            value, default = getattr(self, key), _DEFAULTS[key]
            require(key, value, value == default, f'left out with `unit` = "{self.unit}"')

    def _check_bounds(self) -> None:
        """Refuse a guarantee without a bound or without noise, and keys that do not go together."""
        if (self.clip_norm is None) == (self.clip_norms is None):
            raise Mistake("give `clip_norm`, the largest norm of an update, or `clip_norms`, one for each of its parts")
        if self.noise_multiplier is None and self.epsilon is None:
            raise Mistake("give `noise_multiplier`, or `epsilon` and let the noise be chosen for it")
        adaptive = self.clip == "adaptive"
        for key in ("target_quantile", "clip_lr", "count_noise"):
            value = getattr(self, key)
            require(key, value, adaptive or value is None, 'left out unless `clip` = "adaptive"')
        if adaptive and self.clip_norms is not None:
            raise Mistake('one bound can adapt, not several; give `clip_norm`, or `clip` = "fixed"', key="clip_norms")
        if self.where == "clients":
            require("clip", self.clip, not adaptive, '"fixed" with `where` = "clients"')
        else:
            dropouts = self.tolerated_dropouts
            require("tolerated_dropouts", dropouts, dropouts == 0, 'left out unless `where` = "clients"')


_OF_SECURE_SUM = ("secure_bits", "secure_limit", "secure_threshold")
_DEFAULTS = {name: field.default for name, field in Privacy.__dataclass_fields__.items() if name != "unit"}
_OF_CLIENTS = ("clip_norms", "clip", "target_quantile", "clip_lr", "count_noise", "where", "tolerated_dropouts")
_OF_EXAMPLES = ("statistics_clip", "statistics_share")
