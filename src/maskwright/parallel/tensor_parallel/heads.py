"""The masked language model whose layers and vocabulary are shared between ranks.

Legend: N tokens, B sequences, M predicted positions, D hidden, V vocabulary, v rows of it that are here.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ...model.dropout import DropoutKeys
from ...model.heads import MaskedLM
from ...model.layout import Layout
from .collectives import gather_columns, spread
from .group import SharingGroup, local
from .modules import SharedEmbeddings
from .vocabulary import shared_cross_entropy

__all__ = ["SharedMaskedLM"]

# Matrix products of accelerators run at full rate where the sides are multiples of this many values.
_TILE = 64


class SharedMaskedLM(MaskedLM):
    """A masked language model of several ranks; every method gives all of them the same result."""

    share: SharingGroup

    def logits(self, hidden_MD: Tensor) -> Tensor:
        """Scores over the whole vocabulary for some encoded positions; (M, D) to (M, V)."""
        features_MD = spread(self.features(hidden_MD), self.share.group)
        weight_vD = local(self.encoder.embeddings.word.weight)
        logits_Mv = F.linear(features_MD, weight_vD, local(self.head_bias))
        return gather_columns(logits_Mv, self.config.vocab_size, self.share.group)

    def masked_loss(
        self, hidden_ND: Tensor, targets_M: Tensor, labels_M: Tensor, table_VD: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Summed loss over the predicted positions; see `MaskedLM.masked_loss`.

        Args:
            hidden_ND: what `encode` returned.
            targets_M: which of the N positions are predicted, int64.
            labels_M: their right ids, int64.
            table_VD: this rank's rows of the word table; by default the parameter's.

        Returns:
            `(loss_sum, num_correct)`: fp32 scalar in nats, int64 scalar.
        """
        features_MD = self.features(hidden_ND.index_select(0, targets_M))
        table_vD = local(self.encoder.embeddings.word.weight) if table_VD is None else table_VD
        num_rows = self.config.vocab_size
        first, group = self.share.first_row(num_rows), self.share.group
        tile = 1 if features_MD.device.type == "cpu" else _TILE
        return shared_cross_entropy(
            features_MD, table_vD, local(self.head_bias), labels_M, first, num_rows, group, tile
        )

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
        """Encode, and sum the losses; see `MaskedLM.forward`. All ranks get the same micro-batch."""
        embeddings = self.encoder.embeddings
        assert isinstance(embeddings, SharedEmbeddings)
        words_CD, table_vD = embeddings.lookup(ids_N)
        hidden_ND = self.encoder(ids_N, layout, keys, token_types_N, words_CD)
        return self._losses(hidden_ND, layout, targets_M, labels_M, table_vD, next_labels_B)
