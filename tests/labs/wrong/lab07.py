"""Wrong answers to lab 07: exercise -> (code in the place of the solution, a part of what the check must say)."""

_PREDICTED = "predicted = dict(h='float16', a='float16', c='float32', d='float16', e='float32', f='float32')"
_RULE = (
    "if rule == 'banned':\n    return 'refused'\n"
    "if rule == 'lower':\n    return low\n"
    "if rule == 'fp32':\n    return 'float32'\n"
)
_PROMOTE = (
    "if rule == 'promote':\n"
    "    if not set(given) <= {low, 'float32'}:\n        return 'refused'\n"
    "    return 'float32' if 'float32' in given else low\n"
)

WRONG = {
    "1a": (
        (_PREDICTED.replace("e='float32'", "e='float16'"), "no result is cast back"),
        (_PREDICTED.replace("d='float16'", "d='float32'"), "casts its inputs down again"),
        (_PREDICTED.replace("c='float32'", "c='float16'"), "meet in float32"),
    ),
    "1b": (
        (_RULE + _PROMOTE + "return low", "does not look at the region's format"),
        (
            _RULE + "if rule == 'promote':\n    return 'float32' if 'float32' in given else low\n"
            "return given[0] if len(set(given)) == 1 else 'float32'",
            "refuses the other 16-bit format",
        ),
        (_RULE + _PROMOTE + "return 'float32' if 'float32' in given else given[0]", "holds both"),
    ),
    "2a": (
        (
            "casts = {event.number: event for event in events if event.op == 'cast'}\n"
            "accounts = {}\n"
            "for event in events:\n"
            "    for side in event.inputs:\n"
            "        for link in side.links if side and event.op != 'cast' else ():\n"
            "            if link in casts:\n"
            "                made = casts[link]\n"
            "                moved = bytes_of(made.inputs[0]) + bytes_of(made.outputs[0])\n"
            "                accounts[event.op] = accounts.get(event.op, 0) + moved\n"
            "return accounts",
            "counts once, for its first reader",
        ),
        (
            "casts = {event.number: event for event in events if event.op == 'cast'}\n"
            "accounts = {}\n"
            "for event in events:\n"
            "    for side in event.inputs:\n"
            "        for link in side.links if side and event.op != 'cast' else ():\n"
            "            made = casts.pop(link, None)\n"
            "            if made is not None:\n"
            "                accounts[event.op] = accounts.get(event.op, 0) + bytes_of(made.outputs[0])\n"
            "return accounts",
            "what a cast reads counts, and what it writes",
        ),
        (
            "accounts = {}\n"
            "for event, after in zip(events, events[1:], strict=False):\n"
            "    if event.op == 'cast':\n"
            "        moved = bytes_of(event.inputs[0]) + bytes_of(event.outputs[0])\n"
            "        accounts[after.op] = accounts.get(after.op, 0) + moved\n"
            "return accounts",
            "whose input links to the cast",
        ),
    ),
    "2b": (
        ("return float(sum(inputs))", "with the cache gradients add up in bfloat16"),
        (
            "total = float(sum(inputs))\n"
            "return float(mp.formats.round(np.array(total), mp.bfloat16)) if cached else total",
            "after each addition",
        ),
        (
            "total = 0.0\n"
            "for x in inputs:\n"
            "    total += x\n"
            "    if cached:\n"
            "        total = float(mp.formats.round(np.array(total), mp.bfloat16))\n"
            "return total",
            "from the last to the first",
        ),
    ),
    "3a": (
        ("return sorted(op for op in policy if policy[op] is not stock[op])", "try each one alone"),
        (
            "found = []\n"
            "for op in policy:\n"
            "    if policy[op] is not stock[op]:\n"
            "        with mp.autocast('float16', policy=policy.with_({op: stock[op]})):\n"
            "            if np.isfinite(compute().item()):\n"
            "                found.append(op)\n"
            "return sorted(found)",
            "to take one edit back heals nothing",
        ),
        (
            "found = []\n"
            "for op in policy:\n"
            "    if policy[op] is not stock[op]:\n"
            "        with mp.autocast('float16', policy=stock.with_({op: policy[op]})):\n"
            "            if np.isinf(compute().item()):\n"
            "                found.append(op)\n"
            "return sorted(found)",
            "infinity less infinity is NaN",
        ),
    ),
    "4a": (
        ("return F.binary_cross_entropy(scores.sigmoid(), targets)", "the ban is for the region"),
        (
            "with mp.autocast(enabled=False):\n"
            "    return F.binary_cross_entropy(scores.sigmoid().float(), targets)",
            "a float16 tensor is float16 still",
        ),
        (
            "with mp.autocast(enabled=False):\n"
            "    return F.binary_cross_entropy(scores.float().sigmoid(), targets)",
            "begin with the scores",
        ),
    ),
    "5a": (
        ("mine = all_low.with_(sum='fp32', exp='fp32')", "also the operation that is given it"),
        ("mine = stock", "need not be wide: rule it lower"),
        ("mine = all_low.with_(sum='fp32', sqrt='fp32', exp='fp32')", "the operation that comes next"),
    ),
}  # fmt: skip
