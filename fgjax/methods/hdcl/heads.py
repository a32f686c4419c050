"""Heads on a backbone's pooled feature: class centres on the sphere, and learned similarities."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from fgjax.losses import normalize
from fgjax.models import layers


class CenterHead(nnx.Module):
    """Norm-scale layer and class centres (HDCL Eq. 4, 5; Fig. 3).

    x = α f / ‖f‖ and o = Wᵀ x, without bias; W is weight-normed, w_j = g_j v_j / ‖v_j‖.
    """

    def __init__(self, features: int, num_classes: int, *, alpha: float, rngs: nnx.Rngs):
        self.alpha = alpha
        # PyTorch's linear layer under weight_norm: v uniform in ±1/√D, g its norm.
        bound = features**-0.5
        shape = (features, num_classes)
        v = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        self.directions = nnx.Param(v)
        self.lengths = nnx.Param(jnp.linalg.norm(v, axis=0))

    def start_at(self, means: np.ndarray, counts: np.ndarray) -> None:
        """Turn the centres to class means [K, D], less the mean of them; lengths stay.

        All features share a large part, which tells no class from another. A class without images
        (`counts` [K]) keeps its random centre.
        """
        some = counts > 0
        apart = means - means[some].mean(axis=0, keepdims=True)
        unit = apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-12)
        known = some & (np.linalg.norm(apart, axis=1) > 0)
        turned = jnp.asarray(unit.T.astype(np.float32)) * self.lengths[...]
        self.directions[...] = jnp.where(jnp.asarray(known), turned, self.directions[...])

    def centers(self) -> jax.Array:
        """Unit class centres [D, K]."""
        return normalize(self.directions[...].T).T

    def __call__(self, features: jax.Array) -> jax.Array:
        """Logits [B, K] of features [B, D]."""
        return self.alpha * normalize(features) @ (self.centers() * self.lengths[...])


class PairSimilarity(nnx.Module):
    """Position-dependent deep metric (PDDM): a similarity s_ij of every pair of embeddings.

    u = |f_i − f_j| and v = (f_i + f_j) / 2 pass a layer each and are normalised; a third layer
    joins them, a fourth makes a number of it. The embeddings are constants here.
    """

    def __init__(self, features: int, *, width: int = 128, rngs: nnx.Rngs):
        self.difference = layers.Linear(features, width, rngs=rngs)
        self.mean = layers.Linear(features, width, rngs=rngs)
        self.joint = layers.Linear(2 * width, width, rngs=rngs)
        self.score = layers.Linear(width, 1, rngs=rngs)

    def __call__(self, embeddings: jax.Array) -> jax.Array:
        """Similarities [B, B] of unit embeddings [B, D]."""
        f = jax.lax.stop_gradient(embeddings)
        u, v = jnp.abs(f[:, None] - f[None]), (f[:, None] + f[None]) / 2
        u = normalize(jax.nn.relu(self.difference(u)))
        v = normalize(jax.nn.relu(self.mean(v)))
        joined = jax.nn.relu(self.joint(jnp.concatenate([u, v], axis=-1)))
        return self.score(joined)[..., 0]
