"""LayerwiseScaler: adaptive layer-wise loss scaling around an optimizer, with the calls of GradScaler."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self
from weakref import ref

from minimp.errors import GradientError, ScalerError, SettingError, unknown_name
from minimp.formats import float16
from minimp.scaler.grad_scaler import GradScaler
from minimp.scaler.gradients import listing
from minimp.scaler.layerwise.backward import LayerwiseWalk
from minimp.scaler.layerwise.layers import Layers, LayerwiseSettings
from minimp.scaler.layerwise.loss import LayerwiseLoss, seed_of
from minimp.scaler.layerwise.points import LAYERS, LayerNames, edges_of, is_narrow, layer_name
from minimp.scaler.layerwise.report import LayerwiseReport
from minimp.scaler.layerwise.saving import layers_from, layers_to
from minimp.scaler.machine import ScaleRule, ScaleState
from minimp.scaler.records import ScalerStep
from minimp.tape import Edge, Node, Value
from minimp.tape.leaves import add_to_leaves
from minimp.tape.scales import mark_of, marks_behind
from minimp.tensors import Tensor

__all__ = ["LayerwiseScaler"]

BY_PLACE = re.compile(rf"({'|'.join([*LAYERS, 'cast'])})-[1-9][0-9]*")
"""What layers are called whose weights have no name."""


class LayerwiseScaler:
    """Scale the gradient of each layer by a power of two of its own, chosen from what flows through it.

    One scale for the whole loss must suit the layer with the smallest gradients and the one with the
    largest. Here each layer l multiplies the gradient that flows into it by its own s_l, before its products
    are computed in FP16::

        g_l = s_l * (gradient that arrives),    dx_l = g_l W_l,   dW_l = g_l^T x_l

    so that a gradient that has come through layers 1 to l, counted from the loss, is S_l = s_1 s_2 ... s_l
    times too large. Whatever reaches a parameter is divided by its S_l in the parameter's format: `.grad`
    holds true gradients, and may be clipped, added up and logged as they are. Gradients of several scales
    that meet, at a residual connection for example, are brought to one before they are added. All factors
    are powers of two: where nothing overflows or underflows, the gradients are the same bits as without
    scaling.

    s_l is the smallest power of two, at least 1, for which no more than `threshold` of the results lies
    below the smallest number of the format, by a normal model from the second moments of gradient, weight
    and input; unless a result could overflow, when it is the largest for which none can (the model and its
    sources: :mod:`minimp.scaler.layerwise.factors`). Layers are the ops linear, matmul, conv1d, conv2d and
    both transposed convolutions where they compute in float16, and each cast that stores a float32 gradient
    in float16. Other ops pass the scale on. If a gradient overflows all the same, the step is skipped, and
    the layer nearest to it that took in finite numbers may take half of its factor from then on, doubled
    again after `growth_interval` good steps in a row.

    Use it as a GradScaler; `scale` leaves the value of the loss as it is, and its `backward` does the work::

        scaler = LayerwiseScaler().name_parameters(model)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        print(scaler.report())

    Differences from the authors' implementation (Chainer): s_l acts on the weight's gradient too, and is
    chosen for both (there, for dx alone); second moments are measured, zeros included, where there half of
    the terms are taken to be zero (ReLU); powers of two are rounded up, not down, so that the threshold
    holds; S_l may grow beyond 1,024, because it is divided out in the parameter's format and not in FP16.

    Args:
        threshold: the largest share of a layer's result that may lie below the smallest number (0 to 1).
        update_every: choose factors anew in every n-th step, counted by update(); in between they stay.
        init_scale: what the gradient of the loss starts at.
        min_scale, max_scale: the least and the greatest factor a layer may choose.
        growth_interval: good steps in a row until a lowered ceiling is doubled.
        fixed: name of a layer -> its factor, which then stays (static layer-wise scaling).
        measure: compute each layer's result again in float32, to count what is flushed, for :meth:`report`.

    Raises:
        SettingError: a setting of the wrong type or range, or a scale that is no power of two.

    Source: Zhao, Vogel, Ahmed and Luk 2019, arXiv 1910.12385.
    """

    def __init__(
        self,
        *,
        threshold: float = 1e-3,
        update_every: int = 1,
        init_scale: float = 1.0,
        min_scale: float = 2.0**-24,
        max_scale: float = 2.0**24,
        growth_interval: int = 2000,
        fixed: Mapping[str, float] | None = None,
        measure: bool = False,
    ) -> None:
        settings = LayerwiseSettings(
            threshold, update_every, init_scale, min_scale, max_scale, growth_interval, fixed or {}, measure
        )
        self._layers = Layers(settings)
        self._steps: GradScaler = GradScaler.preset("static", init_scale=1.0)
        self._scales: dict[int, tuple[ref[Edge], int]] = {}
        self._walk: LayerwiseWalk | None = None
        self._backwards = 0
        self._overflowed: tuple[str, ...] = ()

    # ---- a training step ----------------------------------------------------------------------------------

    def scale(self, outputs: Any) -> Any:
        """Return a tensor with the value of a loss, whose `backward` scales layer by layer.

        Of a list or tuple, each; a float16 or bfloat16 loss without axes becomes float32.

        Raises:
            SettingError: neither a tensor nor a list or tuple of tensors.
        """
        if isinstance(outputs, list | tuple):
            kind: Any = type(outputs)
            scaled = [self.scale(each) for each in outputs]
            return kind(*scaled) if hasattr(outputs, "_fields") else kind(scaled)  # a named tuple takes each
        if not isinstance(outputs, Tensor):
            raise SettingError(
                f"expected a tensor, or a list or tuple of tensors, got {type(outputs).__name__}",
                op="LayerwiseScaler.scale", help="wrap numbers with mp.tensor(...)",
            )  # fmt: skip
        product = self._steps.scale(outputs)
        return LayerwiseLoss(product, self)

    def backward(self, loss: Tensor, grad: Any = None, *, retain_graph: bool | None = None) -> None:
        """Add d(loss)/d(leaf) to the `.grad` of each leaf, unscaled; what `scale(loss).backward()` does.

        Args:
            loss: the tensor to differentiate.
            grad: its gradient, of its shape; 1 for a tensor of one element.
            retain_graph: keep what was saved, so that backward can run again.

        Raises:
            GradientError: there is nothing to differentiate.
            ScalerError: a parameter is in float16, where dividing by S would flush what was saved; or no
                layer computes in float16, and none has a fixed factor: nothing could be scaled.
            SettingError: a fixed layer is unknown.
        """
        parameters = self._steps.names_by_id()
        self._check(loss, parameters)
        settings = self._layers.settings
        start = math.frexp(settings.init_scale)[1] - 1
        names = LayerNames(parameters, settings.fixed)
        walk = LayerwiseWalk(self._layers, names, keep=bool(retain_graph))
        seed = seed_of(loss, grad)
        wide = loss.backend.times(seed, settings.init_scale)
        marks = marks_behind([loss], [mark_of(grad)])  # the loss may have been scaled by another scaler too
        self._layers.latest, self._walk = {}, walk
        try:
            found = walk.run(loss, loss.backend.narrow(wide, loss.format), start)
        finally:
            self._scales, self._walk = walk.scales(), None
        add_to_leaves(found, marks)
        self._backwards += 1

    def _check(self, loss: Tensor, parameters: Mapping[int, str]) -> None:
        """Refuse, before anything is computed, a graph in which this scaler cannot do its work."""
        if loss.edge is None:
            raise GradientError(
                "the loss does not depend on anything that requires a gradient", op="LayerwiseScaler",
                help="make a leaf with requires_grad=True, and compute outside mp.no_grad()",
            )  # fmt: skip
        edges = list(edges_of(loss.edge))
        half = [
            parameters.get(id(e), f"a leaf {e.shape}")
            for e in edges
            if isinstance(e, Value) and e.format is float16
        ]
        if half:
            raise ScalerError(
                f"cannot unscale float16 gradients: {listing(half)}",
                op="LayerwiseScaler", formats=["float16"],
                help="keep master weights: parameters in float32, computing under mp.autocast('float16')",
            )  # fmt: skip
        layers = [e for e in edges if isinstance(e, Node) and (e.op.name in LAYERS or e.op.name == "cast")]
        fixed = self._layers.settings.fixed
        if not fixed and not any(is_narrow(node.format) for node in layers):
            raise ScalerError(
                "no layer computes in float16: there is nothing to scale", op="LayerwiseScaler",
                help="compute the model under mp.autocast('float16'), or leave the scaler out",
            )  # fmt: skip
        if fixed:
            here = {layer_name(node, parameters) for node in layers} - {None}
            known = here | {
                name[: -len(".weight")] for name in parameters.values() if name.endswith(".weight")
            }
            for name in fixed:
                if name not in known and not BY_PLACE.fullmatch(name):
                    raise SettingError(
                        unknown_name("layer", name, sorted(each for each in known if each)),
                        op="LayerwiseScaler", help="call name_parameters(model), and name a layer of it",
                    )  # fmt: skip

    def unscale_(self, optimizer: Any) -> None:
        """Look for infinities and NaN, before clipping for example; the gradients are unscaled already.

        Raises:
            ScalerError: as :meth:`minimp.GradScaler.unscale_`, or no backward went through this scaler.
        """
        self._require_backward("unscale_")
        self._steps.unscale_(optimizer)

    def step(self, optimizer: Any, *args: Any, **options: Any) -> Any:
        """Run `optimizer.step(*args, **options)`, or skip it if a gradient is infinite or NaN.

        Raises:
            ScalerError: as :meth:`minimp.GradScaler.step`, or no backward went through this scaler.
        """
        self._require_backward("step")
        return self._steps.step(optimizer, *args, **options)

    def update(self) -> None:
        """End an iteration: halve the layers that overflowed, or count a good step.

        Raises:
            ScalerError: as :meth:`minimp.GradScaler.update`.
            SettingError: at the first step: a layer with a fixed factor was not met.
        """
        self._require_backward("update")
        self._require_fixed()
        self._steps.update()
        self._finish()

    def advance(self, found_inf: bool, nonfinite: Iterable[str] = ()) -> None:
        """End an iteration by a verdict reached elsewhere.

        Args:
            found_inf: whether any gradient was infinite or NaN.
            nonfinite: the parameters whose gradients were, for messages.
        """
        self._require_fixed()
        self._steps.advance(found_inf, nonfinite)
        self._finish()

    def _require_fixed(self) -> None:
        """Refuse to end the first step if a factor that was given had nothing to act on."""
        missing = sorted(self._layers.missing)
        if missing and not self._layers.steps and self._backwards:
            raise SettingError(
                f"fixed: {listing(missing)} took no part in this step as a layer", op="LayerwiseScaler",
                help="report() lists those that did; embeddings and normalisations pass the scale on",
            )  # fmt: skip

    def _finish(self) -> None:
        self._overflowed = self._layers.finish(bool(self._steps.state.skips))
        self._backwards = 0

    def _require_backward(self, call: str) -> None:
        if not self._backwards:
            raise ScalerError(
                f"{call}() was called, but no backward went through this scaler since the last update()",
                op=f"LayerwiseScaler.{call}", help="call .backward() on what scaler.scale(loss) returned",
            )  # fmt: skip

    # ---- what it knows ------------------------------------------------------------------------------------

    @property
    def settings(self) -> LayerwiseSettings:
        """What it was made with."""
        return self._layers.settings

    @property
    def rule(self) -> ScaleRule:
        """How the scale of `.grad` moves: it is 1, and stays."""
        return self._steps.rule

    @property
    def state(self) -> ScaleState:
        """The scale of `.grad`, which is 1, and how many steps in a row were skipped."""
        return self._steps.state

    @property
    def last_step(self) -> ScalerStep | None:
        """What became of the last :meth:`step`."""
        return self._steps.last_step

    @property
    def overflowed(self) -> tuple[str, ...]:
        """The layers that overflowed in the last finished step; those not fixed take half as much now."""
        return self._overflowed

    @property
    def factors(self) -> dict[str, float]:
        """The factor s of each layer that was met: name -> power of two."""
        known = self._layers.table.items()
        return {name: 2.0**layer.exponent for name, layer in known if layer.exponent is not None}

    def get_scale(self) -> float:
        """Return 1: gradients leave backward unscaled."""
        return 1.0

    scale_value = property(get_scale)

    def scale_of(self, x: Tensor) -> float:
        """Return S, the scale with which a gradient arrived at `x` in the last backward, or in this one.

        What hooks of `x` are shown, and `.grad` of a tensor that is no leaf (`retain_grad`), has that scale.

        Raises:
            GradientError: no gradient arrived there.
        """
        edge = x.edge
        if self._walk is None:
            held = self._scales.get(id(edge))
            exponent = held[1] if held is not None and held[0]() is edge else None
        else:
            exponent = None if edge is None else self._walk.exponents.get(edge)
        if exponent is None:
            raise GradientError(
                "no gradient arrived here in the last backward", op="LayerwiseScaler.scale_of"
            )
        return 2.0**exponent

    def is_enabled(self) -> bool:
        """Tell that scaling is enabled."""
        return True

    def name_parameters(self, model: Any) -> Self:
        """Learn what the parameters are called: layers take their names from their weights.

        Args:
            model: an object with `named_parameters()`, or (name, parameter) pairs.

        Raises:
            SettingError: neither.
        """
        self._steps.name_parameters(model)
        return self

    def report(self) -> LayerwiseReport:
        """Return what each layer did in the last backward; print it for a table."""
        return LayerwiseReport(self._layers.rows(), self._overflowed, self._steps.state.skips)

    def __repr__(self) -> str:
        """Show the settings that matter, and how many layers there are."""
        s = self.settings
        return (
            f"LayerwiseScaler(threshold={s.threshold:g}, update_every={s.update_every}, "
            f"layers={len(self._layers.table)}, skips={self.state.skips})"
        )

    # ---- saving -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return the settings, and of each layer its factor and its ceiling: numbers, strings and mappings.

        Save it after update(), between iterations. Reports are not saved.
        """
        return layers_to(self._layers, self._steps.state_dict())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned; its settings are taken over.

        Raises:
            SettingError: an entry is missing or cannot be used. Nothing is changed.
        """
        layers, steps = layers_from(state_dict)
        self._steps.load_state_dict(steps)
        self._layers = layers

    def __getstate__(self) -> dict[str, Any]:
        """Copy (copy.deepcopy, pickle) without what is known of the last backward's tensors."""
        return self.__dict__ | {"_scales": {}, "_backwards": 0}
