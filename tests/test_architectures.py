"""The command that tries the architectures of transformers: its list, and one of each hard kind."""

from __future__ import annotations

import pytest

from strop.bench.architectures import ARCHITECTURES, build_it, model_of, outcome


def test_the_list_is_broad_and_known_to_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert len(ARCHITECTURES) >= 60
    assert set(ARCHITECTURES) <= set(CONFIG_MAPPING)


def test_a_refusal_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> None:
        raise ValueError("two\nlines")

    monkeypatch.setattr("strop.bench.architectures.model_of", fails)
    assert outcome("bert", peer=False) == "ValueError: two lines"


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mixtral", "qwen2_moe", "qwen3_moe", "deepseek_v2", "deepseek_v3", "falcon", "fnet"]
)
def test_experts_complex_rotary_and_transforms(name: str) -> None:
    build_it(model_of(name))
