"""A Llama of three blocks and a GPT-2 whose blocks give tuples, both without weights."""

import pytest

from ndif_batch.trace import LanguageModel
from tests.site_maps import gpt2, info, llama


@pytest.fixture
def lm() -> LanguageModel:
    return LanguageModel(info(llama(layers=3, width=8, mlp=16, keys=4, vocabulary=50)))


@pytest.fixture
def tuples() -> LanguageModel:
    return LanguageModel(info(gpt2()))
