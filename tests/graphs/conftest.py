import pytest
from tiny import tiny_model, tiny_transcoder

import interp_kit as ik


@pytest.fixture(scope="module")
def setting():
    """A tiny model, its transcoder, and the graph of a prompt."""
    model = tiny_model()
    clt = tiny_transcoder(model)
    return model, clt, ik.attribute(model, clt, "the capital of Texas is")
