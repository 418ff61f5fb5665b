"""What does one neuron do?"""

from .collect import collect_features
from .units import Neurons


def neuron_examples(model, layer: int, neuron: int, texts, n_examples: int = 10):
    """A card of one neuron: the windows of `texts` in which it is strongest, of either sign, and some at random.

    Raises ValueError for a layer or a neuron that the model does not have.
    """
    neurons = Neurons(model, [layer])
    if not 0 <= neuron < neurons.counts[0]:
        raise ValueError(f"neuron {neuron}: layer {layer} has neurons 0 to {neurons.counts[0] - 1}")
    return collect_features(model, neurons, texts, n_examples).show(layer, neuron, n_examples=n_examples)
