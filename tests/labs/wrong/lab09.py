"""Wrong answers to lab 09: exercise -> (code in the place of the solution, a part of what the check must say)."""

WRONG = {
    "1a": (
        (
            "bad = [e for e in trace.events if any(s and s.stats and s.stats.nan for s in e.outputs)]\n"
            "return (bad[0].title, bad[0].module, bad[0].step) if bad else None",
            "an infinity came before",
        ),
        (
            "found = trace.first_nonfinite()\n"
            "return None if found is None else (found.event.op, found.event.module, found.event.step)",
            "whether it was forward or backward",
        ),
        (
            "found = trace.first_nonfinite()\n"
            "if found is None:\n    return None\n"
            "event = found.chain[-1] if found.chain else found.event\n"
            "return event.title, event.module, event.step",
            "large, but finite",
        ),
    ),
    "2a": (
        (
            "with mp.trace.record(values='all') as trace:\n"
            "    for batch in batches:\n        step(*batch)\n"
            "found = trace.first_nonfinite()\n"
            "if found is None:\n    return None\n"
            "made = trace.values(found.event)['out0']\n"
            "bad = ~np.isfinite(made).reshape(len(made), -1).all(axis=1)\n"
            "return found.event.step, found.event.title, np.flatnonzero(bad).tolist()",
            "stop in backward, before the update",
        ),
        (
            "try:\n    with mp.trace.break_when('nonfinite'):\n"
            "        for batch in batches:\n            step(*batch)\n"
            "except mp.errors.BreakpointError as stop:\n"
            "    made = stop.trace.values(stop.event)['out0']\n"
            "    bad = np.isnan(made).reshape(len(made), -1).any(axis=1)\n"
            "    return stop.event.step, stop.event.title, np.flatnonzero(bad).tolist()\n"
            "return None",
            "not finite means both",
        ),
        (
            "for batch in batches:\n    try:\n        with mp.trace.break_when('nonfinite'):\n"
            "            step(*batch)\n"
            "    except mp.errors.BreakpointError as stop:\n"
            "        made = stop.trace.values(stop.event)['out0']\n"
            "        bad = ~np.isfinite(made).reshape(len(made), -1).all(axis=1)\n"
            "        return stop.event.step, stop.event.title, np.flatnonzero(bad).tolist()\n"
            "return None",
            "counts from 1 anew",
        ),
    ),
    "2b": (
        (
            "difference = a - b\nreturn (difference * difference).sum(dim=1).sqrt() + 1e-8",
            "the root of 0 is still taken",
        ),
        (
            "d = a - b\nsquares = (d * d).sum(dim=1)\n"
            "return F.where(squares > 0, squares.sqrt(), mp.tensor(np.float32(0)))",
            "even where the result is thrown away",
        ),
        (
            "difference = a - b\nreturn ((difference * difference).sum(dim=1) + 1e-2).sqrt()",
            "small against the squares",
        ),
    ),
    "3a": (
        (
            "rows = {row['parameter']: row for row in trace.swallowed()}\n"
            "return {n: 'no gradient' if n not in rows else 'swallowed' if rows[n]['share'] > 0.9 else 'moves'\n"
            "        for n in names}",
            "has a share of 0",
        ),
        (
            "rows = {row['parameter']: row for row in trace.swallowed()}\n"
            "def word(n):\n"
            "    if n not in rows:\n        return 'no gradient'\n"
            "    if rows[n]['non-zero'] == 0:\n        return 'zero gradient'\n"
            "    return 'swallowed' if rows[n]['swallowed'] > 0.9 * rows[n]['elements'] else 'moves'\n"
            "return {n: word(n) for n in names}",
            "not of all elements",
        ),
        (
            "rows = {row['parameter']: row for row in trace.swallowed()}\n"
            "def word(n):\n"
            "    if n not in rows or rows[n]['non-zero'] == 0:\n        return 'zero gradient'\n"
            "    return 'swallowed' if rows[n]['share'] > 0.9 else 'moves'\n"
            "return {n: word(n) for n in names}",
            "has no row",
        ),
    ),
    "3b": (
        (
            "for e in trace.select(phase='backward'):\n"
            "    if not any(s.stats.nonzero for s in e.outputs if s is not None):\n"
            "        return e.title, e.module\n"
            "return None",
            "not all of them",
        ),
        (
            "for e in trace.select(phase='backward'):\n"
            "    if e.flushed:\n        return e.title, e.module\n"
            "return None",
            "not more than half",
        ),
        (
            "for e in trace.events:\n"
            "    kept = sum(s.stats.nonzero for s in e.outputs if s is not None)\n"
            "    if e.flushed > kept:\n        return e.title, e.module\n"
            "return None",
            "backward is asked for",
        ),
    ),
    "4a": (
        (
            "row = next(iter(trace.amplifiers()))\nreturn row['op'], row['where']",
            "takes less than 1 % in",
        ),
        (
            "rows = [row for row in trace.amplifiers() if row['leaving'] > 0.1]\n"
            "worst = max(rows, key=lambda row: row['leaving'], default=None)\n"
            "return worst and (worst['op'], worst['where'])",
            "large when it came in",
        ),
        (
            "rows = [row for row in trace.amplifiers() if row['entering'] < 0.01 and row['leaving'] > 0.1]\n"
            "return (rows[0]['op'], rows[0]['where']) if rows else None",
            "sorted by `times`",
        ),
    ),
    "4b": (
        (
            "angles = F.linear(t, mp.tensor(frequencies)).float()\n"
            "return F.cat([angles.sin(), angles.cos()], dim=1)",
            "does not come back",
        ),
        (
            "with mp.autocast('float16'):\n    return encode(t, frequencies)",
            "errors below 0.001",
        ),
        (
            "with mp.autocast('bfloat16', enabled=False):\n"
            "    angles = F.linear(t, mp.tensor(frequencies))\n"
            "    return F.cat([angles.cos(), angles.sin()], dim=1)",
            "errors below 0.001",
        ),
    ),
    "5a": (
        (
            "while session.done < 10:\n"
            "    session.next_stage()\n"
            "    if not session.check():\n        return session.moment.event.title, session.moment.event.module\n"
            "return None",
            "it was one of them",
        ),
        (
            "for moment in moments_of(session):\n"
            "    if not session.check():\n        return moment.event.op, moment.event.module\n"
            "return None",
            "its backward does not",
        ),
        (
            "found = session.search('nonfinite', steps=1)\n"
            "return None if found is None else (found.event.title, found.event.module)",
            "in which every check holds",
        ),
    ),
}  # fmt: skip
