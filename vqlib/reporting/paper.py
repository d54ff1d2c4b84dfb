"""What the paper reports: its numbers, setting and claims, in one place.

Source: the report "VQ-VAE extension" (N. Vila, 2022) and its released code and log. The losses are read off the bars
of its Figures 4 and 5, so each is uncertain by ``UNCERTAINTY``. Squared errors are means over every element, that of
the reconstruction on [-1, 1]; "quantization" is ``mse(z_q, z_e)``.
"""

LOSSES_SOURCE = "read off the bars of its Figures 4 and 5"
UNCERTAINTY = 0.0003  # of every loss below

# Keys are this repository's names of variants; `projected` stands for both axes, see COUNTERPART.
LOSSES = {
    "vq": {
        "title": "VQ-VAE",
        "train": {"quantization": 0.0087, "reconstruction": 0.0170},
        "test": {"quantization": 0.0085, "reconstruction": 0.0191},
    },
    "projected": {
        "title": "Projected-Latent",
        "train": {"quantization": 0.0065, "reconstruction": 0.0053},
        "test": {"quantization": 0.0068, "reconstruction": 0.0056},
    },
    "frequency_312": {
        "title": "Frequency S=312",
        "train": {"quantization": 0.0078, "reconstruction": 0.0168},
        "test": {"quantization": 0.0081, "reconstruction": 0.0203},
    },
    "frequency_412": {
        "title": "Frequency S=412",
        "train": {"quantization": 0.0110, "reconstruction": 0.0217},
        "test": {"quantization": 0.0126, "reconstruction": 0.0243},
    },
    "frequency_502": {
        "title": "Frequency S=502",
        "train": {"quantization": 0.0089, "reconstruction": 0.0173},
        "test": {"quantization": 0.0094, "reconstruction": 0.0191},
    },
}

# A variant of ours -> the paper's model. The text describes `projected`; the released code runs `projected_rows`.
COUNTERPART = {name: name for name in LOSSES} | {"projected_rows": "projected"}

SETTING = {
    "data": "CIFAR-10",  # by its code and pictures; the project page says ImageNet
    "image_size": 32,
    "train_images": 50_000,
    "test_images": 9_984,  # batches of 128 with the last one dropped; the test split also chose the weights
    "width": 256,  # D, and the channels inside the network
    "num_embeddings": 512,  # K
    "batch_size": 128,
    "steps": 39_100,  # 100 epochs of 391
    "learning_rate": 2e-4,
    "beta": 1.0,  # of the commitment term in the code, of the codebook term in the text
    "scalars_per_image_of_projected": 64,  # h * w
    "scalars_per_image_of_projected_rows": 2_048,  # D * h
    "weights_chosen_on": "the test split",
    "batchnorm_in_evaluation": "batch statistics",
}

PRIOR_BITS_PER_CODE = 4.81  # best validation loss of the PixelCNN on the VQ-VAE's codes, 3.333 nats in its log

CLAIMS = {
    "C1": "Projection at least halves the VQ-VAE's reconstruction error.",
    "C2": "Training with projection is unstable, with late peaks.",
    "C3": "The projected model's reconstructions are almost identical to the originals.",
    "C4": "The Frequency-Latent model brings nothing convincing, and no clear trend in S.",
    "C5": "With continuous latents no prior could be trained, so nothing could be sampled.",
}


def error_ratio(variant: str) -> tuple[float, float, float] | None:
    """Test reconstruction error over the VQ-VAE's: value, least and greatest within the reading's uncertainty.

    None for a variant that the paper does not have.
    """
    if variant not in COUNTERPART:
        return None
    error, base = (LOSSES[name]["test"]["reconstruction"] for name in (COUNTERPART[variant], "vq"))
    if COUNTERPART[variant] == "vq":
        return 1.0, 1.0, 1.0
    least, greatest = (error - UNCERTAINTY) / (base + UNCERTAINTY), (error + UNCERTAINTY) / (base - UNCERTAINTY)
    return error / base, least, greatest
