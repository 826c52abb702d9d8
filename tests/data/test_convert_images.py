"""Images of one form as those of another, held against Pillow."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from fmaml.data.convert_images import convert, of_form
from fmaml.data.preprocessing import Form
from fmaml.data.sources.glyphs import glyphs
from fmaml.data.sources.sinusoid import sinusoid

CPU = torch.device("cpu")
PHOTO = Form(84, 3, "squeeze")
SMALL_PHOTO = Form(32, 3, "squeeze")
DRAWING = Form(28, 1, "pad", invert=True)


def photographs() -> torch.Tensor:
    """Smooth random images, [2 tasks, 3, 3, 84, 84]."""
    coarse = torch.rand(6, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    fine = torch.nn.functional.interpolate(coarse, (84, 84), mode="bilinear")
    return (fine * 255).round().div(255).unflatten(0, (2, 3))


def pillow(x: torch.Tensor, size: int, mode: str) -> torch.Tensor:
    pixels = (x * 255).round().byte().permute(1, 2, 0).numpy()
    image = Image.fromarray(pixels).convert(mode).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.atleast_3d(np.asarray(image)).copy()).permute(2, 0, 1) / 255


@pytest.mark.parametrize(("form", "mode"), [(SMALL_PHOTO, "RGB"), (DRAWING._replace(invert=False), "L")])
def test_as_pillow_scales_and_greys(form, mode):
    x = photographs()
    y = convert(x, PHOTO, form)
    assert y.shape == (2, 3, form.channels, form.size, form.size)
    for i in range(2):
        for j in range(3):
            apart = (y[i, j] - pillow(x[i, j], form.size, mode)).abs().max()
            assert apart < 2.01 / 255  # Pillow rounds after each of grey, width and height


def test_ink_and_colour():
    x = torch.rand(1, 2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    colour = convert(x, DRAWING, Form(28, 3, "squeeze"))
    assert torch.equal(colour, (1 - x).expand(1, 2, 3, 28, 28))
    assert torch.allclose(convert(colour, Form(28, 3, "squeeze"), DRAWING), x, atol=1e-6)  # grey of grey is itself
    assert torch.equal(convert(x, DRAWING, DRAWING), x)


def test_a_source_of_another_form_has_the_same_tasks():
    source = glyphs(seed=3, device=CPU, ways=5, queries=2)
    other = of_form(source, SMALL_PHOTO)
    assert source.form is not None
    plain, seen = source.sample("test", 7, range(2)), other.sample("test", 7, range(2))
    assert other.inputs == (3, 32, 32) == seen.query.x.shape[2:]
    assert torch.equal(seen.query.y, plain.query.y)
    assert torch.equal(seen.query.x, convert(plain.query.x, source.form, SMALL_PHOTO))
    assert torch.equal(other.sample("test", 7, range(1, 2)).support.x, seen.support.x[1:])
    assert other.about["protocol"].endswith("images of 28x28x1 as 32x32x3, light and dark exchanged")
    again = pickle.loads(pickle.dumps(other))
    assert torch.equal(again.sample("test", 7, range(2)).query.x, seen.query.x)


def test_where_nothing_differs_it_is_the_source():
    source = glyphs(seed=3, device=CPU, ways=5, queries=2)
    assert source.form is not None
    assert source.form.invert
    plain = source.sample("test", 7, range(2)).query.x
    for fit, invert, seen in (("squeeze", True, plain), ("pad", False, 1 - plain)):
        other = of_form(source, source.form._replace(fit=fit, invert=invert))
        assert torch.equal(other.sample("test", 7, range(2)).query.x, seen)
        assert (other.about["protocol"] == source.about["protocol"]) == invert


def test_what_has_no_images_is_refused():
    with pytest.raises(ValueError, match="no images"):
        of_form(sinusoid(seed=0, device=CPU), SMALL_PHOTO)
