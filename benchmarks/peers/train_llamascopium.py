"""Trains llamascopium's cross-layer transcoder: python train_llamascopium.py ACTIVATIONS [options, see --help]

In an environment of its own: pip install torch==2.13.0, then torch==2.13.0 llamascopium==2.0.0b34
transformer-lens==3.9.0 (it does not import with 4).

Its class, initialisation, loss and Adam, each with the options of its own that were best on a CPU. With `topk` (k
features a token and layer, as its `topk` counts) it decodes with CSR matrices, in float32: bfloat16 is not
implemented for them. With `relu` it decodes dense, in the bfloat16 autocast that is its trainer's default, and has its
tanh penalty, whose coefficient rises over the first tenth of the run as in its trainer. Decoders to later layers begin
at zero (a lower error), Adam is not `foreach` (faster), and features are not ranked by their decoders' norms (faster,
the same error). The gradient norm, metrics and progress bar of its trainer are left out.
"""

import logging

import torch
from llamascopium import CLTConfig, CrossLayerTranscoder, Initializer, InitializerConfig
from peer_training import main

SPARSITY = 2.0  # about 8 features a token and layer after 300 steps


class Peer:
    def __init__(self, n_layers, d_model, options):
        self.reads, self.writes = [f"in.{i}" for i in range(n_layers)], [f"out.{i}" for i in range(n_layers)]
        self.relu = options.activation == "relu"
        self.sparsity = SPARSITY if options.sparsity is None else options.sparsity
        config = CLTConfig(
            d_model=d_model,
            expansion_factor=(options.features + 0.5) / d_model,  # it rounds down
            hook_points_in=self.reads,
            hook_points_out=self.writes,
            act_fn=options.activation,
            top_k=options.k,
            decode_with_csr=not self.relu,
            init_cross_layer_decoder_all_zero=True,
            sparsity_include_decoder_norm=False,
            norm_activation="inference",  # the activations are scaled already
            device="cpu",
            dtype=torch.float32,
        )
        self.clt = CrossLayerTranscoder(config)
        Initializer(InitializerConfig(init_encoder_with_decoder_transpose=False)).initialize_parameters(self.clt)
        self.optimizer = torch.optim.Adam(self.clt.parameters(), lr=options.lr, betas=(0.9, 0.999), foreach=False)

    def loss(self, x, y, progress):
        batch = dict(zip(self.reads + self.writes, [*x, *y], strict=True))
        penalty = {}
        if self.relu:
            penalty = {"sparsity_loss_type": "tanh", "l1_coefficient": self.sparsity * min(1, progress / 0.1)}
        with torch.autocast("cpu", torch.bfloat16, enabled=self.relu):
            return self.clt.compute_loss(batch, return_aux_data=False, **penalty)

    def rebuild(self, x):
        active = self.clt.encode(x.transpose(0, 1))
        return self.clt.decode(active), active.transpose(0, 1)


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    main("llamascopium", Peer)
