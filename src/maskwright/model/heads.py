"""Models with a purpose: an encoder and the head on top of it.

Legend: N tokens, B sequences, M predicted positions, D hidden, V vocabulary, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import EncoderConfig
from .dropout import DropoutKeys, dropout
from .encoder import Encoder
from .layers import SITES
from .layout import Layout
from .loss import vocabulary_cross_entropy

__all__ = ["MaskedLM", "SequenceClassifier"]


class MaskedLM(nn.Module):
    """Encoder with the masked-language-model head, whose output weights are the word embeddings.

    The head is computed for the asked positions only.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))

    def features(self, hidden_MD: Tensor) -> Tensor:
        """What the output embeddings are compared with; (M, D) to (M, D)."""
        result: Tensor = self.head_norm(F.gelu(self.head_dense(hidden_MD)))
        return result

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores over the vocabulary for some encoded positions; (M, D) to (M, V)."""
        return F.linear(self.features(hidden_MD), self.encoder.embeddings.word.weight, self.head_bias)

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        targets_M: Tensor,
        labels_M: Tensor,
        keys: DropoutKeys | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Summed loss over the predicted positions.

        Args:
            ids_N: token ids with masks in place, int64.
            layout: lengths of the sequences.
            targets_M: which of the N positions are predicted, int64.
            labels_M: their right ids, int64.
            keys: keys for dropout; None turns it off.

        Returns:
            `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
        """
        hidden_ND = self.encoder(ids_N, layout, keys)
        features_MD = self.features(hidden_ND.index_select(0, targets_M))
        return vocabulary_cross_entropy(
            features_MD, self.encoder.embeddings.word.weight, self.head_bias, labels_M
        )


class SequenceClassifier(nn.Module):
    """Encoder with a two-layer head on the first token, as RoBERTa uses for GLUE.

    Args:
        config: shape of the encoder.
        num_labels: C.
        dropout_prob: share of head inputs and inner values dropped.
    """

    def __init__(self, config: EncoderConfig, num_labels: int, dropout_prob: float | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.dropout_prob = config.hidden_dropout_prob if dropout_prob is None else dropout_prob
        self.encoder = Encoder(config)
        self.head_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_output = nn.Linear(config.hidden_size, num_labels)

    def forward(self, ids_N: Tensor, layout: Layout, keys: DropoutKeys | None = None) -> Tensor:
        """Scores of the classes for each sequence; returns fp32 of shape (B, C)."""
        first_BD = self.encoder(ids_N, layout, keys).index_select(0, layout.first_tokens)
        site, ones = SITES * (1 + self.config.num_hidden_layers), (1,) * len(layout.lengths)
        inner_BD = torch.tanh(self.head_dense(dropout(first_BD, keys, ones, site, self.dropout_prob)))
        inner_BD = dropout(inner_BD, keys, ones, site + 1, self.dropout_prob)
        logits_BC: Tensor = self.head_output(inner_BD)
        return logits_BC.float()
