"""How far an artifact may be from the original model: its outputs, and the user's own metrics."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

NotNegative = Annotated[float, pydantic.Field(ge=0)]


class MetricBudget(pydantic.BaseModel):
    """The limit for one metric of the model's ``evaluate``, in the units of that metric.

    Attributes:
        max_drop: how far below the original's value the artifact's may be. None: not limited.
        max_rise: how far above it, for metrics of which less is better (loss, perplexity).
        min: least value of the artifact.
        max: largest value of the artifact.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    max_drop: NotNegative | None = None
    max_rise: NotNegative | None = None
    min: float | None = None
    max: float | None = None

    @pydantic.model_validator(mode="after")
    def _require_a_bound(self) -> MetricBudget:
        if not self.model_dump(exclude_none=True):
            raise ValueError("the budget of a metric needs max_drop, max_rise, min or max")
        return self


class Budget(pydantic.BaseModel):
    """How far the artifact may be from the original model, output by output.

    Attributes:
        max_error: largest absolute difference, over the output's largest magnitude where that
            is above 1. None: not limited.
        min_cosine: least mean cosine of the rows of a float output. None: not limited.
        min_agreement: least share of equal elements of an output that is not float, over all
            cases together. None: the share that differs must not exceed ``max_error``.
        max_time: the longest that one run of a quantized model may take, as a share of what the
            same recipe takes without the passes that quantize. None: it must not be slower.
        min_token_agreement: least share of tokens that a decoder chooses as the original does,
            each behind the original's own tokens. None: not limited.
        max_perplexity: the most that a decoder's perplexity on calibration text may be, as a share
            of the original's. None: not limited.
        metrics: limits for the metrics that ``evaluate`` returns, by name.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    max_error: NotNegative | None = None
    min_cosine: Annotated[float, pydantic.Field(ge=-1, le=1)] | None = None
    min_agreement: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    max_time: Annotated[float, pydantic.Field(gt=0)] | None = None
    min_token_agreement: Annotated[float, pydantic.Field(ge=0, le=1)] | None = None
    max_perplexity: Annotated[float, pydantic.Field(gt=0)] | None = None
    metrics: dict[str, MetricBudget] = {}

    @property
    def least_agreement(self) -> float:
        """The least share of equal elements of an output that is not float."""
        if self.min_agreement is not None:
            return self.min_agreement
        return 0.0 if self.max_error is None else 1 - self.max_error

    def values(self) -> dict[str, Any]:
        """The limits that are set, as TOML and JSON hold them."""
        found = self.model_dump(exclude_none=True)
        return {name: value for name, value in found.items() if value != {}}
