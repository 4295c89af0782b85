"""The linear algebra of post-training pruning: which weights of a matrix go, and what the others become.

Everything here speaks of one linear map with inputs x [in] and weights W [out, in], and of the quadratic
error (W' - W) H (W' - W)^T that changed weights make on calibration inputs, H [in, in] = sum of x x^T. The
factor 2 of H as a second derivative moves no minimum and is left out.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.runs import generator
from hardtack.select import cut, lowest, round_half_up

WIDTH = 64
"""Columns between two looks at what is cheapest by now; 32 to 192 were tried on MiniLM (decision 18)."""
RESTART = 30
"""Steps of conjugate gradients between two residuals in float64."""
PANEL = 512
"""Columns of a factor that are solved for at once."""
ROWS = 512
"""Rows that are re-fitted at once: more take memory, and no row knows of another."""
CHUNK = 2**28
"""Bytes that the rows' own inverses may take at once in `removed_exactly`."""


class Budget(NamedTuple):
    """How many weights of one matrix go.

    Attributes:
        gone: of each row (scope "row") or of the whole matrix (scope "site").
        scope: "row" or "site".
        banks: (n, m): of each m consecutive inputs of a row exactly n stay, whatever the others say.
    """

    gone: int
    scope: str = "row"
    banks: tuple[int, int] | None = None

    def mask(self, scores: Tensor) -> Tensor:
        """Return the bool mask [out, in] that cuts the lowest scores; ties go as in `select`."""
        if self.banks:
            keep, bank = self.banks
            return lowest(scores.reshape(-1, bank), bank - keep).view(scores.shape)
        return lowest(scores, self.gone) if self.scope == "row" else cut(scores, self.gone)

    def share(self, begin: int, end: int, of: int) -> "Budget":
        """Return what of the budget falls to the columns from `begin` to `end`: the shares sum up exactly."""
        count = round_half_up(self.gone * end / of) - round_half_up(self.gone * begin / of)
        return self._replace(gone=count)


class Factor(NamedTuple):
    """The Hessian H = gram + ridge, and the upper triangular U with U^T U = H^-1, its inputs in `order`.

    H itself is not stored: it is a Gram matrix that others hold too, and a number. Row j of U is that of the
    inverse of H without the first j inputs, scaled: one factor serves a sweep over all columns, for all rows
    of all matrices that read the same inputs.
    """

    gram: Tensor
    ridge: float
    upper: Tensor
    order: Tensor

    @classmethod
    def of(cls, gram: Tensor, ridge: float, what: str, *, mixed: bool = True) -> "Factor":
        """Factor a Gram matrix in float64.

        Args:
            gram: sum of x x^T, [in, in]; float64 is kept and not copied.
            ridge: added once (K6: never in place, never again for a row), in units of the mean diagonal.
            what: the matrix, for errors.
            mixed: order the inputs by chance (the same for every call), so that each stretch of columns that
                a sweep chooses from has some of every attention head; False leaves them, as banks need it.

        Raises:
            InputError: when the Gram matrix is not finite, zero, or singular in spite of its ridge.
        """
        gram = gram.double()
        middle = gram.diagonal().mean()
        if not torch.isfinite(gram.sum()):
            raise InputError(f"the inputs of {what} hold NaN or infinity on the calibration data")
        if middle == 0:
            raise InputError(f"the inputs of {what} are all zero on the calibration data")
        size, added = len(gram), ridge * float(middle)
        order = torch.randperm(size, generator=generator(0, "columns")) if mixed else torch.arange(size)
        order = order.to(gram.device)
        # The flipped Cholesky factor gives R upper with H = R R^T, so U = R^-1: no inverse of H is formed.
        # All in one matrix's memory: the widest of these is most of what a streamed search holds.
        back = order.flip(0)
        memory = gram[back[:, None], back]
        memory.diagonal().add_(added)
        R, failed = memory.mT, torch.empty((), dtype=torch.int32, device=gram.device)
        torch.linalg.cholesky_ex(R, out=(R, failed))
        if int(failed):
            raise InputError(f"the Hessian of {what} is singular at ridge {ridge}; choose a larger ridge")
        _reverse_(memory.view(-1))
        for begin in reversed(range(0, size, PANEL)):  # a panel of U needs no more than R up to its end
            end = min(begin + PANEL, size)
            one = R.new_zeros(end, end - begin)
            one[begin:].fill_diagonal_(1.0)
            R[:end, begin:end] = torch.linalg.solve_triangular(R[:end, :end], one, upper=True)
        return cls(gram, added, R, order)

    @property
    def hessian(self) -> Tensor:
        """Return H, in memory of its own."""
        H = self.gram.clone()
        H.diagonal().add_(self.ridge)
        return H

    def times(self, left: Tensor) -> Tensor:
        """Return a float64 matrix [n, in] times H."""
        return (left @ self.gram).add_(left, alpha=self.ridge)

    def inverse_times(self, right: Tensor) -> Tensor:
        """Return H^-1 times a matrix [in, n]."""
        U = self.upper.to(right.dtype)
        return self._back(U.T @ (U @ right[self.order]))

    def inverse_diagonal(self) -> Tensor:
        """Return the diagonal of H^-1, [in]."""
        return self._back(self.upper.square().sum(0))

    def _back(self, rows: Tensor) -> Tensor:
        out = torch.empty_like(rows)
        out[self.order] = rows
        return out


def _reverse_(row: Tensor) -> None:
    """Turn a vector around in its own memory."""
    size = len(row)
    for begin in range(0, size // 2, CHUNK // 64):
        end = min(begin + CHUNK // 64, size // 2)
        left = row[begin:end].flip(0)
        row[begin:end] = row[size - end : size - begin].flip(0)
        row[size - end : size - begin] = left


def saliency(W: Tensor, factor: Factor) -> Tensor:
    """Return what the removal of each weight alone would cost, w^2 / [H^-1]_pp (eq. 1), [out, in]."""
    return W.double().square() / factor.inverse_diagonal()


def removed(W: Tensor, factor: Factor, budget: Budget) -> tuple[Tensor, Tensor]:
    """Remove weights column by column on the shared factor; the columns to the right make up for each.

    The factor is float64's, the sweep float32. Every WIDTH columns (a bank, for banks) the cheapest of what
    is there by now are chosen, by w^2 / U_jj^2.

    Args:
        W: float64 [out, in]; not changed.
        factor: of the inputs.
        budget: what goes.

    Returns:
        The new weights and the bool mask, both [out, in].
    """
    U = factor.upper.to(torch.float32, memory_format=torch.contiguous_format)
    W = W[:, factor.order].float()
    inputs, root = W.shape[1], U.diagonal()
    bank = budget.banks[1] if budget.banks else 0
    width = bank * max(1, WIDTH // bank) if bank else WIDTH
    mask = torch.ones_like(W, dtype=torch.bool)
    for begin in range(0, inputs, width):
        end = min(begin + width, inputs)
        block, error = W[:, begin:end], torch.zeros_like(W[:, begin:end])  # block is a view
        look = bank or end - begin
        keep = mask[:, begin:end]
        for j in range(end - begin):
            if j % look == 0:
                columns = slice(j, j + look)
                scores = (block[:, columns] / root[begin:end][columns]).abs()
                keep[:, columns] = budget.share(begin + j, begin + j + scores.shape[1], inputs).mask(scores)
            error[:, j] = torch.where(keep[:, j], 0.0, block[:, j]) / root[begin + j]
            block[:, j:] -= error[:, j, None] * U[begin + j, begin + j : end]
        W[:, end:] -= error @ U[begin:end, end:]
    back = factor.order.argsort()
    mask = mask[:, back]
    return W[:, back].double() * mask, mask


def removed_exactly(W: Tensor, factor: Factor, budget: Budget) -> tuple[Tensor, Tensor]:
    """Remove the cheapest weight of each row, one by one, with an inverse of its own for each row (eq. 1-2).

    Repaired K7: a weight that may not go any more, because its bank is full, is set apart from one that is
    gone, so that what a bank keeps stays.

    Args:
        W: float64 [out, in]; not changed.
        factor: of the inputs.
        budget: of each row, or banks.

    Returns:
        The new weights and the bool mask, both [out, in].
    """
    assert budget.scope == "row"
    inputs = W.shape[1]
    inverse = factor.inverse_times(torch.eye(inputs, dtype=W.dtype, device=W.device))
    bank = budget.banks[1] if budget.banks else inputs
    each = bank - budget.banks[0] if budget.banks else budget.gone
    parts = []
    for rows in W.split(max(1, CHUNK // (8 * inputs * inputs))):
        w, I = rows.clone(), inverse.repeat(len(rows), 1, 1)
        mask = torch.ones_like(w, dtype=torch.bool)
        left = torch.full((len(w), inputs // bank), each, device=w.device)
        at = torch.arange(len(w), device=w.device)
        for _ in range(each * (inputs // bank)):
            open_ = mask & (left > 0).repeat_interleave(bank, dim=1)
            scores = torch.where(open_, w.square() / I.diagonal(dim1=1, dim2=2), torch.inf)
            p = inputs - 1 - scores.flip(1).argmin(1)  # of equals the later goes
            column = I[at, :, p] / I[at, p, p][:, None]
            w -= w[at, p][:, None] * column
            I -= column[:, :, None] * I[at, p, :][:, None, :]
            mask[at, p] = False
            left[at, p // bank] -= 1
            w *= mask
            I[at, p, :], I[at, :, p] = 0.0, 0.0  # exact zeros: rounding must not bring a weight back
            I[at, p, p] = 1.0
        parts.append((w, mask))
    weights, masks = zip(*parts, strict=True)
    return torch.cat(weights), torch.cat(masks)


def refitted(W: Tensor, start: Tensor, mask: Tensor, factor: Factor, steps: int) -> Tensor:
    """Return the least-squares weights on a mask, by conjugate gradients on all rows at once.

    Each row minimises (v - w) H (v - w)^T over the v that are 0 where its mask is; a step is one product with
    H. Steps are taken in float32 on what is missing, RESTART at a time, and what is missing is worked out
    anew in float64 between: the end is as exact as float64 gives it.

    Args:
        W: float64 [out, in], the weights whose outputs are wanted.
        start: [out, in], a guess.
        mask: bool [out, in], True where a weight stays.
        factor: of the inputs; its H is all that counts.
        steps: how many at most.
    """
    v, H = start * mask, factor.gram.float()
    H.diagonal().add_(factor.ridge)
    middle = H.diagonal().mean()
    H.div_(middle)
    for part, w, kept in zip(v.split(ROWS), W.split(ROWS), mask.split(ROWS), strict=True):
        for done in range(0, steps, RESTART):
            missing = factor.times(w - part) * kept
            part.add_(_corrections(missing, kept, H, middle, min(RESTART, steps - done)))
    return v


def _corrections(missing: Tensor, mask: Tensor, H: Tensor, middle: Tensor, steps: int) -> Tensor:
    """Return x with middle x H about `missing` where the mask is, preconditioned by H's diagonal."""
    tiny = torch.finfo(H.dtype).tiny
    size = missing.abs().amax(1, keepdim=True).clamp_min(tiny)  # rows are scaled: float32 has a short range
    r, live = (missing / size).to(H.dtype), mask.to(H.dtype)
    scale = live / H.diagonal()
    x, z = torch.zeros_like(r), r * scale
    d, rz = z.clone(), (r * z).sum(1, keepdim=True)
    for _ in range(steps):  # in place: elsewhere each step would pass over as many new matrices
        q = (d @ H).mul_(live)
        step = rz / torch.linalg.vecdot(d, q)[:, None].clamp_min(tiny)
        x.addcmul_(step, d)
        r.addcmul_(step, q, value=-1)
        torch.mul(r, scale, out=z)
        after = torch.linalg.vecdot(r, z)[:, None]
        d.mul_(after / rz.clamp_min(tiny)).add_(z)
        rz = after
    return x.double() * (size / middle)


def pruned(W: Tensor, factor: Factor, budget: Budget, solver: str, refit: int) -> tuple[Tensor, Tensor]:
    """Return new weights and mask of one matrix, by the named solver and so many steps of re-fitting."""
    new, mask = (removed_exactly if solver == "exact" else removed)(W, factor, budget)
    return (refitted(W, new, mask, factor, refit) if refit else new), mask


def adapted(W: Tensor, factor: Factor, wanted: Tensor) -> Tensor:
    """Return the weights that send the sparse inputs to the dense outputs, in the least-squares sense.

    With X the sparse inputs and Y the dense outputs without bias (rows are tokens), this is
    W_bar^T = W^T + (X^T X + ridge)^-1 (X^T Y - X^T X W^T): the paper's (X^T X + ridge)^-1 X^T Y, but for its
    ridge, which pulls towards W here and not towards 0. Where inputs are alike, nothing changes at any ridge.

    Args:
        W: float64 [out, in].
        factor: of X.
        wanted: X^T Y, [in, out].
    """
    return W + factor.inverse_times(wanted - factor.gram @ W.T).T
