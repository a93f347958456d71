"""Hooks: functions that a module calls around its forward, its backward and its state, as torch.nn.Module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from minimp.errors import FormatError, SettingError, ShapeError
from minimp.handles import RemovableHandle
from minimp.nn.registry import Registry
from minimp.ops.taps import tap
from minimp.tape import Value

__all__ = [
    "Hooked", "call_hooked", "register_module_forward_hook",
    "register_module_forward_pre_hook", "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]  # fmt: skip


@dataclass(frozen=True)
class Hook:
    """One registered function and how it wants to be called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


Table = dict[int, Hook]


@dataclass
class Hooks:
    """The hooks of one module, or those of all modules; each table in the order of calling."""

    forward_pre: Table = field(default_factory=dict)
    forward: Table = field(default_factory=dict)
    backward_pre: Table = field(default_factory=dict)
    backward: Table = field(default_factory=dict)
    state_dict_pre: Table = field(default_factory=dict)
    state_dict: Table = field(default_factory=dict)
    load_pre: Table = field(default_factory=dict)
    load: Table = field(default_factory=dict)


def _register(table: Table, hook: Hook, *, prepend: bool = False) -> RemovableHandle:
    if not callable(hook.function):
        raise SettingError(f"expected a function as hook, got {type(hook.function).__name__}")
    return RemovableHandle(table, hook, first=prepend)


class Hooked(Registry):
    """The registering half of :class:`minimp.nn.Module`; each method returns a :class:`RemovableHandle`."""

    _hooks: Hooks | None = None
    """None as long as neither this module nor all modules have had a hook: all that a call looks at."""

    def _own_hooks(self) -> Hooks:
        if "_hooks" not in self.__dict__:
            object.__setattr__(self, "_hooks", Hooks())
        hooks: Hooks = self.__dict__["_hooks"]
        return hooks

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before forward; what it returns, if not None, replaces the arguments.

        Args:
            hook: the function; a single value that it returns stands for a tuple of one.
            prepend: call it before the hooks that are there, not after.
            with_kwargs: call ``hook(module, args, kwargs)``, which returns None or (args, kwargs).
        """
        return _register(self._own_hooks().forward_pre, Hook(hook, with_kwargs), prepend=prepend)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Call ``hook(module, args, output)`` after forward; what it returns, if not None, is the output.

        Args:
            hook: the function.
            prepend: call it before the hooks that are there, not after.
            with_kwargs: call ``hook(module, args, kwargs, output)``.
            always_call: call it, with what output there is, also when forward or another hook has raised.
        """
        made = Hook(hook, with_kwargs, always_call)
        return _register(self._own_hooks().forward, made, prepend=prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` when the gradients of the outputs are known.

        `grad_output` has an entry for each output of forward, None for what needs no gradient. What the hook
        returns, if not None, replaces it for the module and for the hooks that follow.
        """
        return _register(self._own_hooks().backward_pre, Hook(hook), prepend=prepend)

    def register_full_backward_hook(self, hook: Callable[..., Any], prepend: bool = False) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` when the gradients of the inputs are known.

        `grad_input` has an entry for each positional argument, None for what needs no gradient. What the
        hook returns, if not None, replaces it. Where no input needs a gradient, the hook is called with Nones
        as soon as `grad_output` is known, and can replace nothing (torch warns besides). Forward must return
        a tensor or a tuple.
        """
        return _register(self._own_hooks().backward, Hook(hook), prepend=prepend)

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` before `state_dict` reads the module."""
        return _register(self._own_hooks().state_dict_pre, Hook(hook))

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, {})`` when `state_dict` has read the module and all below.

        The hook changes `state_dict` in place.
        """
        return _register(self._own_hooks().state_dict, Hook(hook))

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, {}, strict, missing, unexpected, errors)`` before loading.

        The hook may change `state_dict`, which is a copy, and add texts to `errors`: loading then raises, and
        nothing is taken over. What it adds to `missing` and `unexpected` counts as found so.
        """
        return _register(self._own_hooks().load_pre, Hook(hook))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, result)`` after loading; it may edit the result's two lists in place."""
        return _register(self._own_hooks().load, Hook(hook))


# ---- hooks of all modules ---------------------------------------------------------------------------------

ALL = Hooks()
"""The hooks of all modules; they are called before a module's own."""


class _GlobalHandle(RemovableHandle):
    """A handle of a hook of all modules; with the last of them, calls are as short as before."""

    def __init__(self, table: Table, hook: Hook) -> None:
        _register({}, hook)  # refuses what is no function
        super().__init__(table, hook)
        Hooked._hooks = Hooks()

    def remove(self) -> None:
        """Take the hook away."""
        super().remove()
        if not any(vars(ALL).values()):
            Hooked._hooks = None


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before the forward of every module; see the method of a module."""
    return _GlobalHandle(ALL.forward_pre, Hook(hook))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the forward of every module; see the method of a module."""
    return _GlobalHandle(ALL.forward, Hook(hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` in the backward of every module; see the method of a module."""
    return _GlobalHandle(ALL.backward_pre, Hook(hook))


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` in the backward of every module; see the method."""
    return _GlobalHandle(ALL.backward, Hook(hook))


# ---- the call ---------------------------------------------------------------------------------------------


def call_hooked(module: Any, hooks: Hooks, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the forward of a module with its hooks around it: those of all modules first, in torch's order."""
    after = {**ALL.forward, **hooks.forward}
    called: set[int] = set()
    state: list[Any] = [args, kwargs, None]  # arguments and output as they are now
    try:
        _run(module, hooks, after, called, state)
    except Exception as fault:
        for number, hook in after.items():
            if hook.always_call and number not in called:
                try:
                    _after(module, hook, state)
                except Exception as other:  # noqa: BLE001 - the first fault goes on, with a word on this one
                    fault.add_note(f"a forward hook with always_call=True raised too: {other!r}")
        raise
    return state[2]


def _run(module: Any, hooks: Hooks, after: Table, called: set[int], state: list[Any]) -> None:
    for hook in [*ALL.forward_pre.values(), *hooks.forward_pre.values()]:
        _before(module, hook, state)
    back = None
    pre = [*ALL.backward_pre.values(), *hooks.backward_pre.values()]
    full = [*ALL.backward.values(), *hooks.backward.values()]
    if pre or full:
        back = _Backward(module, pre, full)
        state[0] = back.tap_inputs(state[0])
    state[2] = module.forward(*state[0], **state[1])
    for number, hook in after.items():
        called.add(number)
        _after(module, hook, state)
    if back is not None:
        state[2] = back.tap_outputs(state[2])


def _before(module: Any, hook: Hook, state: list[Any]) -> None:
    """Call one hook before forward, and take over the arguments that it returns."""
    if not hook.with_kwargs:
        found = hook.function(module, state[0])
        if found is not None:
            state[0] = found if isinstance(found, tuple) else (found,)
        return
    found = hook.function(module, state[0], state[1])
    if found is None:
        return
    if not (isinstance(found, tuple) and len(found) == 2):
        raise SettingError(
            f"expected None or a pair (args, kwargs) from a forward pre-hook, got {type(found).__name__}",
            op=module._name(),
        )
    state[0], state[1] = found


def _after(module: Any, hook: Hook, state: list[Any]) -> None:
    """Call one hook after forward, and take over the output that it returns."""
    args, kwargs, output = state
    call = hook.function
    found = call(module, args, kwargs, output) if hook.with_kwargs else call(module, args, output)
    if found is not None:
        state[2] = found


class _Backward:
    """The hooks of one call of a module in the backward passes through it."""

    def __init__(self, module: Any, pre: list[Hook], full: list[Hook]) -> None:
        self.module, self.pre, self.full = module, pre, full
        self.inputs = 0
        self.waiting = False  # whether an input needs a gradient
        self.grad_output: tuple[Any, ...] | None = None

    def tap_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Put a tap at the arguments."""
        self.inputs = len(args)
        tapped = tap(args, self.at_inputs)
        self.waiting = tapped is not None
        return args if tapped is None else tapped

    def tap_outputs(self, result: Any) -> Any:
        """Put a tap at the outputs."""
        if not isinstance(result, Value | tuple):
            raise SettingError(
                f"backward hooks need an output that is a tensor or a tuple, got {type(result).__name__}",
                op=self.module._name(), help="return a tuple, or take the hook away",
            )  # fmt: skip
        single = not isinstance(result, tuple)
        tapped = tap((result,) if single else result, self.at_outputs)  # type: ignore[arg-type]  # a tuple
        if tapped is None:
            return result
        return tapped[0] if single else tapped

    def at_outputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients of the outputs; without inputs to wait for, the full hooks are called too."""
        for hook in self.pre:
            found = hook.function(self.module, grads)
            grads = grads if found is None else self._checked(found, grads, "grad_output")
        if self.waiting:
            self.grad_output = grads
            return grads
        for hook in self.full:
            found = hook.function(self.module, (None,) * self.inputs, grads)
            if found is not None and not (isinstance(found, tuple) and all(x is None for x in found)):
                raise SettingError(
                    "no input needs a gradient, so a backward hook can return nothing but None",
                    op=self.module._name(),
                )
        return grads

    def at_inputs(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Show the gradients of the inputs, unless they did not come through the outputs."""
        if self.grad_output is None:
            return grads
        output, self.grad_output = self.grad_output, None
        for hook in self.full:
            found = hook.function(self.module, grads, output)
            grads = grads if found is None else self._checked(found, grads, "grad_input")
        return grads

    def _checked(self, found: Any, grads: tuple[Any, ...], what: str) -> tuple[Any, ...]:
        """Return what a hook gave in place of `grads`, which must fit it."""
        given = tuple(found) if isinstance(found, tuple | list) else (found,)
        name = self.module._name()
        if len(given) != len(grads):
            raise SettingError(
                f"a backward hook returned {len(given)} gradients for {what}, which has {len(grads)}", op=name
            )
        for old, new in zip(grads, given, strict=True):
            if old is None or new is None:
                continue
            if not isinstance(new, Value) or new.format is not old.format:
                raise FormatError(
                    f"a backward hook must return tensors in the format they came in, {old.format}", op=name
                )
            if new.shape != old.shape:
                raise ShapeError(
                    f"expected {what} of shape {old.shape} from a hook, got {new.shape}",
                    op=name, shapes=[old.shape, new.shape],
                )  # fmt: skip
        return given
