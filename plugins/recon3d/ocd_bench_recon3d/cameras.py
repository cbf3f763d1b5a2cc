"""Camera models: the direction of each pixel's ray.

Conventions of the whole task: OpenGL axes (the camera looks along -z, y up). The ray of pixel (column i, row j) passes through
its corner, as in tiny_nerf, so that ``cx = width / 2`` is the optical axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ocd_bench.errors import UsageError

STEPS = 30
"""Steps of the fixed-point and Newton iterations that invert a distortion."""
EXACT = 1e-6
"""Largest error of an inverted distortion, in units of the image plane at depth 1."""
WIDEST = np.deg2rad(85)
"""Largest angle between a ray and the optical axis: near and far are depths along that axis, which a ray at 90 degrees never
has."""


@dataclass(frozen=True)
class Camera:
    """One camera.

    Args:
        width, height: of its picture, in pixels.
        fx, fy: focal lengths in pixels. Pixels need not be square.
        cx, cy: the optical axis, in pixels from the left and from the top; None is the middle.
        radial: k1, k2, k3 of Brown's model or, where ``fisheye`` is set, k1 to k4 of OpenCV's fisheye model.
        tangential: p1, p2 of Brown's model.
        fisheye: equidistant projection, ``r = theta (1 + k1 theta^2 + ... + k4 theta^8)``.
    """

    width: int
    height: int
    fx: float
    fy: float
    cx: float | None = None
    cy: float | None = None
    radial: tuple[float, ...] = ()
    tangential: tuple[float, float] = (0.0, 0.0)
    fisheye: bool = False

    @property
    def distorted(self) -> bool:
        return any(self.radial) or any(self.tangential)

    def scaled(self, width: int, height: int) -> Camera:
        """The same camera with its picture scaled to ``width`` x ``height`` pixels."""
        across, down = width / self.width, height / self.height
        return replace(
            self,
            width=width, height=height, fx=self.fx * across, fy=self.fy * down,
            cx=None if self.cx is None else self.cx * across, cy=None if self.cy is None else self.cy * down,
        )  # fmt: skip

    def directions(self, where: str = "camera") -> np.ndarray:
        """``(H, W, 3)`` float64 in the camera's own axes, with depth 1 along the optical axis.

        Raises:
            UsageError: naming ``where``, if the distortion cannot be inverted at some pixel, or a fisheye picture looks further
                than :data:`WIDEST` from its axis.
        """
        rows, columns = np.meshgrid(np.arange(self.height), np.arange(self.width), indexing="ij")
        x = (columns - (self.width / 2 if self.cx is None else self.cx)) / self.fx
        y = (rows - (self.height / 2 if self.cy is None else self.cy)) / self.fy
        if self.fisheye:
            x, y = self._straightened(x, y, where)
        elif self.distorted:
            x, y = self._undistorted(x, y, where)
        return np.stack([x, -y, -np.ones_like(rows, float)], -1)

    def distort(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Brown's model (OpenCV, COLMAP's OPENCV), y down: where a point of the image plane at depth 1 is seen."""
        k1, k2, k3 = (*self.radial, 0.0, 0.0, 0.0)[:3]
        p1, p2 = self.tangential
        square = x * x + y * y
        factor = 1 + square * (k1 + square * (k2 + square * k3))
        return (
            x * factor + 2 * p1 * x * y + p2 * (square + 2 * x * x),
            y * factor + p1 * (square + 2 * y * y) + 2 * p2 * x * y,
        )

    def _undistorted(self, seen_x: np.ndarray, seen_y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Newton's method from the identity; the Jacobian by central differences."""
        x, y = seen_x.astype(float), seen_y.astype(float)
        step = 1e-6
        with np.errstate(all="ignore"):  # what diverges is found below
            for _ in range(STEPS):
                error_x, error_y = (now - seen for now, seen in zip(self.distort(x, y), (seen_x, seen_y), strict=True))
                right, left = self.distort(x + step, y), self.distort(x - step, y)
                low, high = self.distort(x, y + step), self.distort(x, y - step)
                xx, yx = ((a - b) / (2 * step) for a, b in zip(right, left, strict=True))
                xy, yy = ((a - b) / (2 * step) for a, b in zip(low, high, strict=True))
                determinant = xx * yy - xy * yx
                x = x - (yy * error_x - xy * error_y) / determinant
                y = y - (xx * error_y - yx * error_x) / determinant
            again_x, again_y = self.distort(x, y)
            wrong = ~(np.hypot(again_x - seen_x, again_y - seen_y) < EXACT)
            wrong |= ~(determinant > 0) | ~(x * x + y * y < _turning_point(self.radial))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UsageError(
                f"{where}: the lens distortion {self._words()} cannot be inverted at pixel ({column}, {row}) of {self.width} x "
                f"{self.height}; check the coefficients, or undistort the pictures first"
            )
        return x, y

    def _straightened(self, seen_x: np.ndarray, seen_y: np.ndarray, where: str) -> tuple[np.ndarray, np.ndarray]:
        """OpenCV's fisheye model: the distorted radius is a polynomial of the angle from the axis."""
        powers = (*self.radial, 0.0, 0.0, 0.0, 0.0)[:4]
        radius = np.hypot(seen_x, seen_y)
        angle = radius.copy()
        with np.errstate(all="ignore"):
            for _ in range(STEPS):
                value, slope = angle.copy(), np.ones_like(angle)
                for order, k in enumerate(powers, start=1):
                    value += k * angle ** (2 * order + 1)
                    slope += k * (2 * order + 1) * angle ** (2 * order)
                angle = angle - (value - radius) / slope
            wrong = ~(np.abs(value - radius) < EXACT) | ~((angle >= 0) & (angle <= WIDEST))
            wrong |= ~(angle * angle < _turning_point(self.radial))
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise UsageError(
                f"{where}: pixel ({column}, {row}) of the fisheye picture ({self._words()}) looks further than "
                f"{np.rad2deg(WIDEST):.0f} degrees from the optical axis, or nowhere; crop or undistort the pictures first"
            )
        stretch = np.where(radius > 0, np.tan(angle) / np.where(radius > 0, radius, 1), 1.0)
        return seen_x * stretch, seen_y * stretch

    def _words(self) -> str:
        named = [f"k{number}={value:g}" for number, value in enumerate(self.radial, start=1) if value]
        named += [f"p{number}={value:g}" for number, value in enumerate(self.tangential, start=1) if value]
        return ", ".join(named) or "no coefficients"


def _turning_point(radial: tuple[float, ...]) -> float:
    """The square of the smallest radius at which ``r (1 + k1 r^2 + k2 r^4 + ...)`` stops growing: beyond it the inverse is
    another, meaningless one. Infinite if it never does."""
    slope = [1.0, *((2 * order + 1) * k for order, k in enumerate(radial, start=1))]
    roots = np.roots(slope[::-1])
    turning = [root.real for root in roots if abs(root.imag) < 1e-9 * (1 + abs(root)) and root.real > 0]
    return float(min(turning, default=np.inf))
