"""Candidates: the rows of one request, which hold the user's columns only once."""

import dataclasses
from typing import NamedTuple

import tensorflow as tf


class Product(NamedTuple):
    """Columns of a row that are the elementwise product of a vector of the user and a vector of the candidate.

    Attributes:
        once: (1, w), the user's vector.
        start: the candidate's vector is `each[:, start : start + w]`.
    """

    once: tf.Tensor
    start: int


@dataclasses.dataclass(eq=False)  # not frozen, since Keras puts its mask there
class Candidates:
    """The matrix x (N, D) of one user's N candidates, stored without repeating the user's columns in every row:

        x[n] = [once ; each[n] ; product_1 ; …]        product_p = once_p ⊙ each[n, columns of p]

    A function that is linear in x need not build x, see `project`.

    Attributes:
        once: (1, D_once), the columns of the user.
        each: (N, D_each), the columns of the candidates.
        products: the columns computed from both.
    """

    once: tf.Tensor
    each: tf.Tensor
    products: tuple[Product, ...] = ()

    @property
    def shape(self) -> tf.TensorShape:
        """The static shape, (None, D)."""
        products = sum(product.once.shape[-1] for product in self.products)
        return tf.TensorShape([None, self.once.shape[-1] + self.each.shape[-1] + products])

    @property
    def dtype(self) -> tf.DType:
        """The dtype of the columns."""
        return self.each.dtype

    def __tf_tensor__(self, dtype: tf.DType | None = None, name: str | None = None) -> tf.Tensor:
        """The rows as a tensor, for layers that do not know `Candidates`, such as `tf.keras.layers.Dense`."""
        return tf.cast(rows(self), dtype or self.dtype)


def project(x: tf.Tensor | Candidates, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tf.Tensor:
    """Compute `x W + b` with x (N, D), a kernel (D, K) and a bias (K,): (N, K). For candidates, see `of_each`."""
    if isinstance(x, Candidates):
        return project(x.each, *of_each(x, kernel, bias))
    product = tf.matmul(x, kernel)
    # As a bias, so that TensorFlow adds it inside the product, together with a relu that follows.
    return product if bias is None else tf.nn.bias_add(product, bias)


def of_each(x: Candidates, kernel: tf.Tensor, bias: tf.Tensor | None = None) -> tuple[tf.Tensor, tf.Tensor]:
    """The W' (D_each, K) and b' (K,) for which `x W + b = each W' + b'`.

    b' is `once W_once + b`. W' contains the user's vectors: it is W_each with `diag(once_p) W_p` added to the rows of
    each product's columns, since `(once_p ⊙ v) W_p = v (diag(once_p) W_p)`.
    """
    columns = x.once.shape[-1]
    once = tf.reshape(tf.matmul(x.once, kernel[:columns]), (-1,))
    return _kernel_of_each(x, kernel[columns:]), once if bias is None else once + bias


def _kernel_of_each(x: Candidates, kernel: tf.Tensor) -> tf.Tensor:
    """Compute W' from the rows of W that follow the user's."""
    columns = x.each.shape[-1]
    if not x.products:
        return kernel
    once = tf.concat([product.once for product in x.products], axis=1)
    places = [product.start + i for product in x.products for i in range(product.once.shape[-1])]
    diagonals = tf.one_hot(places, columns, dtype=once.dtype, axis=0) * once  # (D_each, D_products)
    return kernel[:columns] + tf.matmul(diagonals, kernel[columns:])


def rows(x: tf.Tensor | Candidates) -> tf.Tensor:
    """x as a tensor, (N, D)."""
    if not isinstance(x, Candidates):
        return x
    once = tf.repeat(x.once, tf.shape(x.each)[0], axis=0)
    products = [p.once * x.each[:, p.start : p.start + p.once.shape[-1]] for p in x.products]
    return tf.concat([once, x.each, *products], axis=1)
