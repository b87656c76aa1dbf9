"""LOBPCG: a few extreme eigenvalues of a symmetric positive definite (generalised) eigenvalue problem.

Knyazev, 2001, with the orthogonal basis selection of Duersch et al., 2018: each step solves the small
problem in the span of the current vectors, the preconditioned residuals and the last directions.
"""

from . import _C


def _symmetrise(M):
    return (M + M.mH) / 2


def _orthonormal(S, B, drop):
    """A B-orthonormal basis of the columns of ``S``; directions below ``drop`` (relative) are left out."""
    for _ in range(2):
        BS = S if B is None else B @ S
        gram = _symmetrise(S.mH @ BS)
        # Scaled to a unit diagonal first: columns of very different lengths do not hide one another.
        d = gram.diagonal(0, -2, -1).abs().sqrt()
        scale = _C.where(d > 0, 1 / d, _C.zeros_like(d))
        gram = gram * scale.unsqueeze(-1) * scale.unsqueeze(-2)
        w, V = _C._linalg.eigh(gram)
        keep = w > drop * max(float(w.max()), 0.0)
        V = V[:, keep] / w[keep].sqrt()
        S = S @ (scale.unsqueeze(-1) * V)
    return S


def _project(S, basis, B):
    """``S`` minus its part in the B-orthonormal ``basis``."""
    for _ in range(2):
        BS = S if B is None else B @ S
        S = S - basis @ (basis.mH @ BS)
    return S


def _solve(A, k, B, X, iK, niter, tol, largest, tracker):
    n = A.shape[-1]
    eps = _C.finfo(A.dtype).eps
    sign = -1.0 if largest else 1.0
    norm_A = float(_C.norm(A @ X) / _C.norm(X))
    norm_B = 1.0 if B is None else float(_C.norm(B @ X) / _C.norm(X))

    def rayleigh_ritz(S):
        w, V = _C._linalg.eigh(_symmetrise(S.mH @ (A @ S)) * sign)
        return w[:k] * sign, S @ V[:, :k]

    X = _orthonormal(X, B, eps)
    while X.shape[-1] < k:
        # A start of deficient rank is filled up at random.
        extra = _C.randn(n, k - X.shape[-1], dtype=A.dtype, device=A.device)
        X = _C.cat([X, _orthonormal(_project(extra, X, B), B, eps)], -1)
    E, X = rayleigh_ritz(X)
    P = None
    for step in range(niter):
        BX = X if B is None else B @ X
        R = A @ X - BX * E
        error = _C._linalg.vector_norm(R, dim=0) / ((norm_A + E.abs() * norm_B) * _C._linalg.vector_norm(X, dim=0))
        if tracker is not None:
            tracker({"step": step, "E": E, "X": X, "R": R, "rerr": error})
        active = error > tol
        if not bool(active.any()):
            break
        W = R[:, active] if iK is None else iK @ R[:, active]
        W = _project(W, X, B)
        parts = [W] if P is None else [W, _project(P, X, B)]
        Q = _orthonormal(_C.cat(parts, -1), B, eps * 10)
        Q = _project(Q, X, B)
        S = _C.cat([X, Q], -1)
        # Once more against rounding: the small problem takes the basis for orthonormal.
        S = _C.cat([X, _orthonormal(Q, B, eps * 10)], -1) if Q.shape[-1] else X
        E, new = rayleigh_ritz(S)
        P = _project(new, X, B)
        X = new
    return E, X


def lobpcg(A, k, B, X, n, iK, niter, tol, largest, method, tracker, ortho_iparams, ortho_fparams, ortho_bparams):
    """The ``k`` extreme eigenvalues of ``A x = w B x`` and their vectors.

    ``A`` (and ``B``, positive definite) are symmetric matrices or batches; ``X`` starts the iteration, else
    ``n`` (or ``k``) random vectors do. ``iK`` is a preconditioner, ``tol`` the relative residual at which a
    vector counts as found, ``largest`` (the default) chooses the end of the spectrum. Gradients flow to ``A``
    through the eigenvalues and eigenvectors found.

    >>> import pyrite as torch
    >>> w, _ = torch.lobpcg(torch.diag(torch.tensor([1.0, 2, 3, 4, 5, 6])), k=2)
    >>> [round(v, 3) for v in w.tolist()]
    [6.0, 5.0]
    """
    if method not in (None, "basic", "ortho"):
        raise ValueError(f"lobpcg: method must be 'basic' or 'ortho', got {method!r}")
    for name, given in (
        ("ortho_iparams", ortho_iparams),
        ("ortho_fparams", ortho_fparams),
        ("ortho_bparams", ortho_bparams),
    ):
        if given:
            raise NotImplementedError(f"lobpcg: {name} is not supported; leave it out")
    if A.dim() < 2 or A.shape[-1] != A.shape[-2]:
        raise ValueError(f"lobpcg: A must be a square matrix or a batch of them, got shape {tuple(A.shape)}")
    m = A.shape[-1]
    k = (1 if X is None else X.shape[-1]) if k is None else k
    n = (k if X is None else X.shape[-1]) if n is None else n
    if m < 3 * k:
        raise ValueError(
            f"LPBPCG algorithm is not applicable when the number of A rows (={m}) is smaller than 3 x the number of requested eigenpairs (={k})"
        )
    if tol is None:
        tol = {_C.float32: 1.2e-4, _C.float64: 1.5e-8}.get(A.dtype, 1.2e-4)
    niter = 1000 if niter is None or niter < 0 else niter
    largest = True if largest is None else largest
    batch = A.shape[:-2]
    if X is None:
        X = _C.randn(*batch, m, n, dtype=A.dtype, device=A.device)
    with _off():
        flat = [
            None if M is None else M.detach().expand(*batch, *M.shape[-2:]).reshape(-1, *M.shape[-2:])
            for M in (A, B, X, iK)
        ]
        results = []
        for i in range(flat[0].shape[0]):
            a, b, x, p = (None if M is None else M[i] for M in flat)
            results.append(_solve(a, k, b, x, p, niter, tol, largest, tracker))
        values = _C.stack([r[0] for r in results]).reshape(*batch, k)
        vectors = _C.stack([r[1] for r in results]).reshape(*batch, m, k)
    if _C.is_grad_enabled() and (A.requires_grad or (B is not None and B.requires_grad)):
        return _attached(A, B, values, vectors)
    return values, vectors


def _off():
    from .autograd.grad_mode import no_grad

    return no_grad()


def _attached(A, B, values, vectors):
    """The pairs found, as differentiable functions of ``A``: one step of the iteration that leaves them.

    A vector moves by the pseudo-inverse of ``A - w``; with the pairs fixed, that step and the Rayleigh quotient
    have the derivatives of the exact pairs.
    """
    if B is not None:
        raise NotImplementedError("lobpcg: derivatives of the generalised problem (B given) are not implemented")
    w, V = values.detach(), vectors.detach()
    S = _symmetrise(A)
    E = (V * (S @ V)).sum(-2)
    columns = []
    eye = _C.eye(A.shape[-1], dtype=A.dtype, device=A.device)
    for i in range(w.shape[-1]):
        v = V[..., i : i + 1]
        shifted = S.detach() - w[..., i, None, None] * eye
        # Invertible off the vector itself, which is taken out again.
        P = eye - v @ v.mH
        inverse = P @ _C._linalg.pinv(P @ shifted @ P, rtol=1e-6, hermitian=True) @ P
        columns.append(v - inverse @ (S @ v - w[..., i, None, None] * v))
    return E, _C.cat(columns, -1)
