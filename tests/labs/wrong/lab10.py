"""Wrong answers to lab 10, see :mod:`tests.labs.wrong.lab00`."""

SCALES = """\
made, good = [], 0
for bad in verdicts:
    good = {count}
    if bad:
        scale /= 2
    elif good {grows} growth_interval:
        scale, good = scale * 2, {after}
    made.append(scale)
return made
"""
CAT = """\
with mp.autocast("bfloat16", policy="torch-cpu", faithful={faithful}):
    parts = [mp.tensor([1.0], dtype=first), mp.tensor([1.0], dtype=second)]
    {tried}
"""
TRIED = """\
try:
        return mp.functional.cat(parts).dtype.name
    except mp.errors.FormatError:
        return "refused"
"""
CPU = 'cpu = mp.policies["torch-cpu"]\n'
WRONG = {
    "1a": (
        ("return [row.release for row in cuda.history() if row.op == op]", "return its last"),
        (
            "found = [row.release for row in cuda.history() if row.op == op]\n"
            "return float(found[-1]) if found else None",
            "a release is text",
        ),
        (
            "found = [row.release for row in cuda.history() if row.op == op]\n"
            'return found[-1] if found else "1.10"',
            "nothing changed there",
        ),
    ),
    "1b": (
        (CPU + "return [op for op in ops if cuda[op] != cpu[op]]", "sorted"),
        (CPU + "return sorted(op for op in ops if cuda[op] == cpu[op])", "those that differ"),
        (
            CPU + "return sorted(op for op in ops if cuda[op] != cpu[op] and cpu[op].value != 'unlisted')",
            "unlisted is a class as well",
        ),
    ),
    "2a": (
        (SCALES.format(count="good + (not bad)", grows="==", after=0), "a bad step begins the count anew"),
        (
            SCALES.format(count="0 if bad else good + 1", grows=">=", after="good"),
            "growth begins the count anew",
        ),
        (SCALES.format(count="0 if bad else good + 1", grows=">", after=0), "the last one doubles"),
    ),
    "2b": (
        ("torch_steps, flax_steps = (100, 100), (100, 100)", "before the one that doubles"),
        ("torch_steps, flax_steps = (100, 200), (101, 202)", "from the first doubling"),
        ("torch_steps, flax_steps = (100, 100), (101, 100)", "in the same way"),
    ),
    "2c": (
        ("telling = [False, False, False]", "go below it"),
        ("telling = [True, True]", "Flax grows one step later"),
        ("telling = [True] * 20 + [False] * 2", "shorter will do"),
        ("telling = [True, True, False, False]", "nearly the same"),
    ),
    "3a": (
        (CAT.format(faithful="True", tried=TRIED), "the order does not matter"),
        (CAT.format(faithful="False", tried=TRIED), "stops looking at the first float32"),
        (
            CAT.format(faithful="faithful", tried="return mp.functional.cat(parts).dtype.name"),
            "say 'refused'",
        ),
    ),
}
