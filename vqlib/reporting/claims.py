"""The paper's claims and where paper, page and code disagree: what each says, the rule that judges it, its judge.

The rules were written down in LOG.md (2026-11-24) before the runs that they judge had ended; what was amended since
stands there under the word "amended", with its date. ``judge_all`` applies them to results alone: no verdict stands
anywhere but in what it returns.
"""

from collections.abc import Sequence

from vqlib.reporting import disagreements, paper
from vqlib.reporting.claims_error import almost_identical, for_free, halved, halved_as_released
from vqlib.reporting.claims_latents import frequency, priors
from vqlib.reporting.claims_training import cause, unstable
from vqlib.reporting.judging import ENOUGH, PAPER_STEPS, PAPER_WIDTH, Claim, Verdict, judges
from vqlib.reporting.results import Results

CLAIMS = (
    Claim(
        "C1",
        paper.CLAIMS["C1"],
        "Let r be the test MSE of `projected` over that of `vq`, three seeds each. Not reproduced if the 95 % "
        "interval of r begins above 0.5, open if 0.5 lies in it. If it ends at or below 0.5, take the fewest bits of "
        "a gain that cost at most 1 % of the error, and of the controls of no more nominal bits the one with "
        "the least validation error: if `projected` halves its error too, by the same kind of interval, reproduced; "
        "else true only at k times the bits per pixel, k being those of `projected` over those of `vq`.",
        halved,
    ),
    Claim(
        "C1, released axis",
        "`projected_rows`, which projects along the image's width as the released code does, at least halves the "
        "error.",
        f"As C1 for `projected_rows`, from width {PAPER_WIDTH} and {PAPER_STEPS:,} steps on; a single seed is a "
        "tendency: halved at 0.4 or below, not at 0.6 or above. If halved: true only at k times the rate, by the "
        "fewest gain bits that cost 1 % of the error; no control is compared, none having a rate near it.",
        halved_as_released,
    ),
    Claim(
        "C1, for free",
        "How much of the error a codebook that is kept in use takes away at no extra nominal bit (our question, not "
        "the paper's).",
        "The error that the best control of the nominal rate of `vq` takes away (on validation, of those that have a "
        "codebook), beside the half that the paper's projection is said to take; one without a codebook apart; beside "
        "both the bits of a real bitstream.",
        for_free,
    ),
    Claim(
        "C2",
        paper.CLAIMS["C2"],
        "A run has a late peak if, in the second half, the highest single-step loss of some logging interval exceeds 3 "
        "times the median of these highest losses. Reproduced if more of five seeds have one than of the runs of "
        "models with a codebook that divide by no norm (Fisher, p < 0.05; copies of `vq`, frequency models without a "
        "continuous position, are not counted). Not reproduced only in runs of the paper's 39,100 steps whose share is "
        "no greater. Else open.",
        unstable("projected"),
    ),
    Claim(
        "C2, released axis",
        "Training of `projected_rows` is unstable, with late peaks.",
        "As C2.",
        unstable("projected_rows"),
    ),
    Claim(
        "C2, its cause",
        "The gradient through 1/(z_q·z_q) makes training of `projected` unstable (suspected, not the paper's claim).",
        "Runs with a late peak or a step whose gradient exceeds 10 times the mean of its logging interval: most of the "
        "original's and fewer than half under every intervention; not the cause if detaching leaves them.",
        cause("projected"),
    ),
    Claim(
        "C2, its cause, released axis",
        "The same gradient makes training of `projected_rows` unstable.",
        "As C2, its cause, with two interventions: a row's divisor is a number per channel and row, not the length of "
        "a code, so unit codes would leave it as small as it is, and there is no such variant.",
        cause("projected_rows"),
    ),
    Claim(
        "C3",
        paper.CLAIMS["C3"],
        "Over three seeds the intervals of PSNR (mean over images) and SSIM lie at or above 28.5 dB (the PSNR of the "
        "paper's mean error; a mean over images lies above that of the mean error) and 0.95.",
        almost_identical("projected", fewest=ENOUGH),
    ),
    Claim(
        "C3, released axis",
        "The reconstructions of `projected_rows` are almost identical to the originals.",
        f"As C3, from width {PAPER_WIDTH} and {PAPER_STEPS:,} steps on, one seed being a tendency.",
        almost_identical("projected_rows", fewest=1, at_least=PAPER_WIDTH, fewest_steps=PAPER_STEPS),
    ),
    Claim(
        "C4",
        paper.CLAIMS["C4"],
        "Not reproduced if at one of the paper's S the MSE is under 0.95 of that of `vq`. Else the rank correlation of "
        "error with the fraction of continuous positions over five values of S or more (copies of `vq` not counted, "
        "`vq` being one): a clear trend is -0.9 or less. Without one reproduced; with one true only of the paper's S, "
        "or not testable for these where the model is `vq` at all of them.",
        frequency,
    ),
    Claim(
        "C5",
        paper.CLAIMS["C5"],
        "Of the priors over codes and continuous values: not reproduced, for the models named, if each has a test rate "
        "below that of histograms (order 0), in all and of the continuous values alone, and its samples are nearer to "
        "test images than draws from the histograms, in pairs of codes and in pixels (sliced Wasserstein distance); "
        "reproduced if no rate of continuous values is below. A tendency below three seeds of each. Runs of the grid "
        "of learning rates do not vote.",
        priors,
    ),
)

DISAGREEMENTS = (
    Claim(
        "1, axis",
        "The text projects each position's vector; the released code sums over the image's width.",
        "Confirmed if the runs' rates imply h·w and D·h numbers an image.",
        disagreements.axis,
    ),
    Claim(
        "2, data",
        "The page says ImageNet; the code and pictures are CIFAR-10.",
        "Which data set gives the released log's numbers of batches.",
        disagreements.data_set,
    ),
    Claim(
        "3, rate",
        "No bits are counted: 9/16 bpp for the VQ-VAE, (9+b)/16 with b-bit gains, 9/16 + D·b/(4W) along the released "
        "axis.",
        "Arithmetic: the formulas against the nominal rate of every run of the paper's models, to four digits.",
        disagreements.rate,
    ),
    Claim(
        "4, frequency table",
        "The released table is little more than the current batch's histogram, in testing too.",
        "Released against described at one S at which either has 0.1 % continuous positions or more: it matters if "
        "that fraction differs by 0.01 or MSE by 2 %, below three seeds of each as a tendency.",
        disagreements.frequency_table,
    ),
    Claim(
        "5, evaluation",
        "BatchNorm keeps batch statistics in evaluation; the last batch is dropped.",
        "The same weights measured both ways (test images in a fixed shuffled order): it matters if for a model of the "
        "paper the mean change of the MSE over three seeds or more is 1 % or more and its 95 % interval excludes 0; if "
        "not, no effect was seen.",
        disagreements.evaluation,
    ),
    Claim(
        "6, β",
        "β multiplies the codebook term in the text, the commitment term in the code.",
        "Arithmetic: without effect if the β in use is 1.",
        disagreements.beta,
    ),
    Claim(
        "7, norms",
        "Nothing keeps z_q·z_q from vanishing: ‖z_q‖ is about 0.018 per position and 0.003 per row at initialisation.",
        "√(D/3)/K and √(h/3)/K, and the greatest over our runs of the least norm in the first row of a log between "
        "half of it and it.",
        disagreements.norms,
    ),
    Claim(
        "8, factor",
        "The page says a factor of 2, Figure 5 shows 3.4.",
        "Whether 2 lies outside the factor's range under the reading's uncertainty.",
        disagreements.factor,
    ),
    Claim(
        "9, in-place ReLU",
        "The decoder's first ReLU changes the projected latent before its loss: the released loss sees relu(P).",
        "The released loss against the described one, three seeds: it matters if the interval of the ratio of MSE "
        "excludes 1; if not, no effect was seen, which does not say that there is none.",
        disagreements.in_place,
    ),
)


def judge_all(
    experiments: Sequence[Results], claims: Sequence[Claim] = (*CLAIMS, *DISAGREEMENTS)
) -> dict[str, Verdict]:
    """The verdict on every claim, by its name, from the experiments that judge; each has one."""
    study = judges(experiments)
    return {claim.name: claim.judge(study) for claim in claims}
