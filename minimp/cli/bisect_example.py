"""What `minimp bisect` runs by itself: attention whose softmax is written out, under rules that miss exp.

PyTorch's rules for the CPU do not list exp, so it computes in the format that it is given: in float16, e^11.1
is infinite. One of the two layers has scores of 15. A script of your own has this form: `run()` computes and
returns what is to be compared; minimp opens the autocast region, and puts back what `run()` changes.
"""

import minimp as mp
from minimp import functional, nn

WIDTH = 16


class Attention(nn.Module):
    """Attention over the rows of a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(WIDTH, WIDTH) for _ in range(3))

    def forward(self, x: mp.Tensor) -> mp.Tensor:
        """Mix the rows: (B, T, C) -> (B, T, C)."""
        scores = self.query(x) @ self.key(x).transpose(1, 2)  # (B, T, T)
        weights = scores.exp()
        weights = weights / weights.sum(2, keepdim=True)
        mixed: mp.Tensor = x + weights @ self.value(x)
        return mixed


class Reader(nn.Module):
    """A classifier of digits of 8 x 8 pixels, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(8, WIDTH)
        self.first, self.second = Attention(), Attention()
        self.head = nn.Linear(8 * WIDTH, 10)

    def forward(self, x: mp.Tensor) -> mp.Tensor:
        """Return the scores of the classes: (B, 64) -> (B, 10)."""
        rows = self.embed(x.reshape(-1, 8, 8))
        scores: mp.Tensor = self.head(self.second(self.first(rows)).reshape(len(x), -1))
        return scores


mp.manual_seed(0)
digits, _rest = mp.data.load("digits")
model = Reader()
optimizer = mp.optim.Adam(model.parameters(), lr=3e-3)
batches = mp.data.DataLoader(digits, 64, shuffle=True, seed=0).cycle()
for _step in range(150):  # in FP32, which the scores outgrow by nothing
    images, labels = next(batches)
    optimizer.zero_grad()
    functional.cross_entropy(model(mp.tensor(images)), labels).backward()
    optimizer.step()


def run() -> dict[str, object]:
    """One forward and backward of 256 digits."""
    images, labels = digits[:256]
    optimizer.zero_grad()
    logits = model(mp.tensor(images))
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    return {"logits": logits, "loss": loss, "gradients": gradients}
