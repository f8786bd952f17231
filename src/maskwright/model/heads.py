"""Models with a purpose: an encoder and the head on top of it.

Legend: N tokens, B sequences, M predicted positions, D hidden, V vocabulary, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .config import EncoderConfig
from .dropout import DropoutKeys, dropout
from .embeddings import tied_lookup
from .encoder import Encoder
from .layers import SITES
from .layout import Layout
from .loss import Workspaces, vocabulary_cross_entropy

__all__ = ["MaskedLM", "SequenceClassifier"]


class MaskedLM(nn.Module):
    """Encoder with the masked-language-model head, whose output weights are the word embeddings.

    The head is computed for the asked positions only. Where the config says so there is a pooler,
    and on top of it a head for next-sentence prediction.

    Args:
        config: shape of the model.

    Source: Devlin et al., BERT, arXiv 1810.04805, section 3.1; Liu et al., RoBERTa, arXiv 1907.11692.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head_bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.pooler = nn.Linear(config.hidden_size, config.hidden_size) if config.has_pooler else None
        self.nsp_output = nn.Linear(config.hidden_size, 2) if config.next_sentence else None
        # Layers have no use for their scratch while there are logits.
        self.workspaces = Workspaces(self.encoder.scratch)

    def encode(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None = None,
        token_types_N: Tensor | None = None,
    ) -> Tensor:
        """Encode sequences, as `Encoder.forward` does; returns (N, D)."""
        hidden_ND: Tensor = self.encoder(ids_N, layout, keys, token_types_N)
        return hidden_ND

    def features(self, hidden_MD: Tensor) -> Tensor:
        """What the output embeddings are compared with; (M, D) to (M, D)."""
        result: Tensor = self.head_norm(F.gelu(self.head_dense(hidden_MD)))
        return result

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores over the vocabulary for some encoded positions; (M, D) to (M, V)."""
        return F.linear(self.features(hidden_MD), self.encoder.embeddings.word.weight, self.head_bias)

    def masked_loss(
        self, hidden_ND: Tensor, targets_M: Tensor, labels_M: Tensor, table_VD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed loss over the predicted positions.

        Args:
            hidden_ND: what `encode` returned.
            targets_M: which of the N positions are predicted, int64.
            labels_M: their right ids, int64.
            table_VD: the word table as `tied_lookup` gave it; by default the parameter.

        Returns:
            `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
        """
        features_MD = self.features(hidden_ND.index_select(0, targets_M))
        table_VD = self.encoder.embeddings.word.weight if table_VD is None else table_VD
        return vocabulary_cross_entropy(features_MD, table_VD, self.head_bias, labels_M, self.workspaces)

    def pooled(self, hidden_ND: Tensor, layout: Layout) -> Tensor:
        """A vector for each sequence, from its first token; (N, D) to (B, D).

        Raises:
            ValueError: the model has no pooler.
        """
        if self.pooler is None:
            raise ValueError("the model has no pooler; set pooler or next_sentence in its config")
        return torch.tanh(self.pooler(hidden_ND.index_select(0, layout.first_tokens)))

    def next_sentence_logits(self, hidden_ND: Tensor, layout: Layout) -> Tensor:
        """Scores for each sequence: the second segment follows the first (0), or is random (1).

        Args:
            hidden_ND: what `encode` returned.
            layout: lengths of the sequences.

        Returns:
            fp32 tensor of shape (B, 2).

        Raises:
            ValueError: the model has no head for next-sentence prediction.
        """
        if self.nsp_output is None:
            raise ValueError(
                "the model has no head for next-sentence prediction; set next_sentence in its config"
            )
        logits_B2: Tensor = self.nsp_output(self.pooled(hidden_ND, layout))
        return logits_B2.float()

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        targets_M: Tensor,
        labels_M: Tensor,
        keys: DropoutKeys | None = None,
        token_types_N: Tensor | None = None,
        next_labels_B: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Encode, and sum the losses.

        Args:
            ids_N: token ids with masks in place, int64.
            layout: lengths of the sequences.
            targets_M: which of the N positions are predicted, int64.
            labels_M: their right ids, int64.
            keys: keys for dropout; None turns it off.
            token_types_N: which segment each token is of, int64; None takes the first for all.
            next_labels_B: 0 where the second segment follows the first, 1 where it is random.

        Returns:
            `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar; with `next_labels_B` the same
            two of next-sentence prediction after them.

        Raises:
            ValueError: there are labels of next sentences, but the model has no head for them.
        """
        weight_VD = self.encoder.embeddings.word.weight
        if weight_VD.device.type == "cpu" and torch.is_grad_enabled():
            self.workspaces.reserve(len(targets_M), weight_VD)
        words_ND, table_VD = tied_lookup(weight_VD, ids_N)
        hidden_ND = self.encoder(ids_N, layout, keys, token_types_N, words_ND)
        return self._losses(hidden_ND, layout, targets_M, labels_M, table_VD, next_labels_B)

    def _losses(
        self,
        hidden_ND: Tensor,
        layout: Layout,
        targets_M: Tensor,
        labels_M: Tensor,
        table_VD: Tensor,
        next_labels_B: Tensor | None,
    ) -> tuple[Tensor, ...]:
        """What `forward` returns, from the encoded tokens and the word table as it was looked up in."""
        losses = self.masked_loss(hidden_ND, targets_M, labels_M, table_VD)
        if next_labels_B is None:
            return losses
        logits_B2 = self.next_sentence_logits(hidden_ND, layout)
        next_correct = (logits_B2.argmax(-1) == next_labels_B).sum()
        return (*losses, F.cross_entropy(logits_B2, next_labels_B, reduction="sum"), next_correct)


class SequenceClassifier(nn.Module):
    """Encoder with a two-layer head on the first token, as RoBERTa and BERT use for GLUE.

    In BERT the first of the two layers is the pooler, whose input is not dropped.

    Args:
        config: shape of the encoder.
        num_labels: C.
        dropout_prob: share of head inputs (not BERT's) and inner values dropped.
    """

    def __init__(self, config: EncoderConfig, num_labels: int, dropout_prob: float | None = None) -> None:
        super().__init__()
        self.config = config
        self.num_labels = num_labels
        self.dropout_prob = config.hidden_dropout_prob if dropout_prob is None else dropout_prob
        self.encoder = Encoder(config)
        self.head_dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.head_output = nn.Linear(config.hidden_size, num_labels)

    def forward(
        self,
        ids_N: Tensor,
        layout: Layout,
        keys: DropoutKeys | None = None,
        token_types_N: Tensor | None = None,
    ) -> Tensor:
        """Scores of the classes for each sequence; returns fp32 of shape (B, C)."""
        first_BD = self.encoder(ids_N, layout, keys, token_types_N).index_select(0, layout.first_tokens)
        site, ones = SITES * (1 + self.config.num_hidden_layers), (1,) * len(layout.lengths)
        if self.config.model_type != "bert":
            first_BD = dropout(first_BD, keys, ones, site, self.dropout_prob)
        inner_BD = torch.tanh(self.head_dense(first_BD))
        inner_BD = dropout(inner_BD, keys, ones, site + 1, self.dropout_prob)
        logits_BC: Tensor = self.head_output(inner_BD)
        return logits_BC.float()
