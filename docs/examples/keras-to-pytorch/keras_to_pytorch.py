"""Train a wide Keras classifier with L1, compress it, and run it in PyTorch.

    pip install ".[highs,keras,torch]" matplotlib
    python docs/examples/keras-to-pytorch/keras_to_pytorch.py

run it in the folder of the checkout; writes smaller.pt2 and keras_to_pytorch.svg into the current folder.
"""

from __future__ import annotations

# tutorial begins
import numpy as np
import torch

import leo_core
import leo_frontends.keras

keras = leo_frontends.keras.import_keras()  # on the backend that is installed
from leo_frontends.keras.training import SoftThreshold

with np.load("docs/examples/digits/digits.npz") as data:
    images, labels = data["images"].astype("float32"), data["labels"].astype("int64")  # 450 scans, 64 pixels of 0 to 16

keras.utils.set_random_seed(0)
rate, strength = 0.2, 3e-3
thin = SoftThreshold(rate * strength)
model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Rescaling(1 / 16),
        keras.layers.Dense(96, "relu", kernel_constraint=thin, name="first"),
        keras.layers.Dense(96, "relu", kernel_constraint=thin, name="second"),
        keras.layers.Dense(10, "softmax", kernel_constraint=thin, name="digit"),
    ]
)
model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
model.fit(images[:350], labels[:350], batch_size=50, epochs=80, verbose=0)

result = leo_core.compress(model, domain=(0, 16))
print(result.summary())

module = result.to("torch")  # Keras in, PyTorch out
result.export("smaller.pt2")

was = model.predict(images[350:], verbose=0)
with torch.no_grad():
    now = module(torch.from_numpy(images[350:])).numpy()
for digit in range(3):
    print(f"a {labels[350 + digit]}: Keras says {was[digit].argmax()} ({was[digit].max():.4f}),",
          f"PyTorch {now[digit].argmax()} ({now[digit].max():.4f})")  # fmt: skip
print(f"the same class: {(was.argmax(1) == now.argmax(1)).sum()} of {len(was)};",
      f"largest difference of a probability: {np.abs(was - now).max():.0e}")  # fmt: skip
# tutorial ends


def picture(path: str) -> None:
    from matplotlib import pyplot as plt

    plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "leo"})
    figure, axes = plt.subplots(1, 3, figsize=(7, 2.2), layout="constrained", sharey=True)
    for digit, place in enumerate(axes):
        place.bar(np.arange(10) - 0.2, was[digit], 0.4, color="#B45F00", label="Keras, before")
        place.bar(np.arange(10) + 0.2, now[digit], 0.4, color="#0072B2", label="PyTorch, after")
        place.set(title=f"a handwritten {labels[350 + digit]}", xticks=range(10), xlabel="class")
        place.spines[["top", "right"]].set_visible(False)
    axes[0].set(ylabel="probability")
    figure.legend(*axes[0].get_legend_handles_labels(), frameon=False, ncols=2, loc="outside lower center")
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    picture("keras_to_pytorch.svg")
