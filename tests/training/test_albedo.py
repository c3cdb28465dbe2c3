"""Light and albedo are told apart by the family's spherical harmonics."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from training.albedo import AMBIENT, fit_light, harmonics, separate


def sphere(n: int) -> NDArray[np.float64]:
    """Unit vectors (n, 3) spread evenly (Fibonacci)."""
    k = np.arange(n) + 0.5
    z, turn = 1 - 2 * k / n, np.pi * (1 + 5**0.5) * k
    r = np.sqrt(1 - z**2)
    return np.stack([r * np.cos(turn), r * np.sin(turn), z], 1)


def test_the_constants_are_the_family_s() -> None:
    a0, a1, a2, k = 0.8862269, 1.7724539, 2.4270324, 0.7006239
    axes = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
    expected = [
        [a0, 0, a1, 0, 0, 0, 2 * k, 0, 0],
        [a0, 0, 0, -a1, 0, 0, -k, 0, a2 / 2],
        [a0, -a1, 0, 0, 0, 0, -k, 0, -a2 / 2],
    ]
    np.testing.assert_allclose(harmonics(axes), expected, atol=1e-12)
    d = 0.5**0.5
    np.testing.assert_allclose(harmonics(np.array([[d, d, 0]]))[0, 4], a2 / 2)
    np.testing.assert_allclose(harmonics(np.array([[0, d, d]]))[0, 5], -a2 / 2)
    np.testing.assert_allclose(harmonics(np.array([[d, 0, d]]))[0, 7], -a2 / 2)


def test_the_nine_functions_are_orthogonal_over_the_sphere() -> None:
    basis = harmonics(sphere(5000))
    gram = basis.T @ basis / 5000
    np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=2e-3)


def test_zero_light_is_a_plain_ambient_light() -> None:
    np.testing.assert_allclose(harmonics(sphere(50)) @ AMBIENT, 0.709, atol=1e-3)


def test_a_known_light_is_found_again() -> None:
    rng = np.random.default_rng(0)
    normals, albedo = sphere(1500), rng.uniform(60, 200, (1500, 3))
    light = rng.normal(0, 0.1, (3, 9))
    basis = harmonics(normals)
    found = fit_light(albedo * (basis @ (light + AMBIENT).T), albedo, basis, np.ones(1500))
    np.testing.assert_allclose(basis @ found.T, basis @ light.T, atol=0.1)  # the ridge holds back a little
    assert np.corrcoef(found.ravel(), light.ravel())[0, 1] > 0.98


def test_brightness_goes_to_the_albedo_and_the_light_stays_around_one() -> None:
    rng = np.random.default_rng(1)
    normals = sphere(400)[200:]  # a face shows one half
    face = rng.uniform(80, 160, (200, 3))
    tones = rng.uniform(0.5, 1.4, (85, 1, 1))
    colours = tones * face * rng.normal(1, 0.02, (85, 200, 3))
    normals_of_all = np.tile(normals, (85, 1, 1))
    mean, modes, coefficients, lights = separate(colours, np.ones((85, 200)), normals_of_all)
    assert modes.shape == (80, 200, 3)
    assert lights.shape == (85, 27)
    basis = harmonics(normals)
    shades = np.stack([basis @ (light.reshape(3, 9) + AMBIENT).T for light in lights])
    np.testing.assert_allclose(shades.mean(1), 1, atol=1e-6)
    albedos = mean + np.tensordot(coefficients, modes, 1)
    brightness = albedos.mean((1, 2)) / albedos.mean()
    assert np.corrcoef(brightness, tones.ravel())[0, 1] > 0.999
    np.testing.assert_allclose(albedos * shades, colours, rtol=0.1)


def test_fewer_faces_than_modes_leave_the_last_modes_empty() -> None:
    rng = np.random.default_rng(2)
    normals = sphere(400)[200:]
    colours = rng.uniform(80, 160, (200, 3)) * rng.normal(1, 0.05, (7, 200, 3))
    mean, modes, coefficients, lights = separate(colours, np.ones((7, 200)), np.tile(normals, (7, 1, 1)))
    assert (modes.shape, coefficients.shape) == ((80, 200, 3), (7, 80))
    assert not modes[7:].any()
    assert not coefficients[:, 7:].any()
    shades = np.stack([harmonics(normals) @ (light.reshape(3, 9) + AMBIENT).T for light in lights])
    np.testing.assert_allclose((mean + np.tensordot(coefficients, modes, 1)) * shades, colours, rtol=0.01)
