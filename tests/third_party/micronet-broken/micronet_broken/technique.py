"""What the plugins point to."""

from __future__ import annotations

import attrs

from micronet.options import option
from micronet.techniques import Quantizer


class Plain:
    pass


@attrs.frozen(kw_only=True)
class Unresolved(Quantizer):
    bits: NotAType = option(8, doc="Of no type.")  # noqa: F821, RUF009 (on purpose)

    def prepare(self, model, example_inputs):
        return model


@attrs.frozen(kw_only=True)
class Working(Quantizer):
    def prepare(self, model, example_inputs):
        return model
