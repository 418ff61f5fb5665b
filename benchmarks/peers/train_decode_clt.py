"""Trains decode-clt's (crosslayer-coding's) transcoder: python train_decode_clt.py ACTIVATIONS [see --help]

In an environment of its own: pip install torch==2.13.0 numpy safetensors, then --no-deps decode-clt==0.0.1.

Its class, initialisation, losses and Adam, in float32: it autocasts on GPUs only. It has no other decoder than the
dense one. Its per-layer top k returns zeros in this version, so `topk` keeps k * layers features a token over all
layers together, ranked as it does by pre-activations standardised within the batch. With `relu` it has its tanh
penalty, whose coefficient rises over the run. Kinder than its own trainer: that encodes a batch twice (three times
with its pre-activation loss, which is left out here), counts each feature's last use and logs.
"""

import logging

import torch
from clt.config import CLTConfig, TrainingConfig
from clt.models.clt import CrossLayerTranscoder
from clt.training.losses import LossManager
from peer_training import main

SPARSITY = 1e-5  # its penalty is a sum over the batch, its error a mean


class Peer:
    def __init__(self, n_layers, d_model, options):
        relu = options.activation == "relu"
        sparsity = SPARSITY if options.sparsity is None else options.sparsity
        config = CLTConfig(
            num_features=options.features,
            num_layers=n_layers,
            d_model=d_model,
            activation_fn=options.activation,
            topk_k=None if relu else options.k * n_layers,
        )
        training = TrainingConfig(
            learning_rate=options.lr,
            training_steps=options.steps,
            normalization_method="none",  # the activations are scaled already
            activation_path="unused",
            sparsity_lambda=sparsity if relu else 0.0,
        )
        self.steps = options.steps
        self.clt = CrossLayerTranscoder(config, process_group=None, device=torch.device("cpu"))
        self.losses = LossManager(training, clt_config=config)
        self.optimizer = torch.optim.Adam(self.clt.parameters(), lr=options.lr)

    def forward(self, x):
        active = self.clt.get_feature_activations(dict(enumerate(x)))
        rebuilt = {i: self.clt.decode({j: active[j] for j in range(i + 1)}, i) for i in range(len(x))}
        return rebuilt, active

    def loss(self, x, y, progress):
        rebuilt, active = self.forward(x)
        self.clt.decoder_module._cached_decoder_norms = None  # as its trainer does after each step
        penalty, _ = self.losses.compute_sparsity_penalty(self.clt, active, progress * self.steps, self.steps)
        return self.losses.compute_reconstruction_loss(rebuilt, dict(enumerate(y))) + penalty

    def rebuild(self, x):
        rebuilt, active = self.forward(x)
        return torch.stack([rebuilt[i] for i in range(len(x))]), torch.stack([active[i] for i in range(len(x))])


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main("decode-clt", Peer)
