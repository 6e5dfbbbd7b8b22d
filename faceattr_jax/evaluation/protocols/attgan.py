"""AttGAN, section 4.2: figures 6 and 7, whose bars no text gives, and the augmentation study."""

from faceattr_jax.evaluation import measures
from faceattr_jax.evaluation.protocol import Protocol, Step

PROTOCOL = Protocol(
    paper="AttGAN",
    images=0,
    configs=("attgan_128", "attgan_64"),
    fine_print=(
        "The paper edits CelebA's test images, one attribute at a time; how many it does not say: all of the split.",
        "Its accuracies are figure 6, its rank-1 rates figure 7, without numbers. In words: near perfect for Bangs, "
        "Eyeglasses, Mouth_Slightly_Open and Pale_Skin; rank-1 is lowest for Male.",
        "Its recogniser is an Inception-ResNet-v2 trained on MS-Celeb-1M. A match is not defined: by image and by "
        "identity.",
        "Strength 1 is what training showed the model. Tables of peers hold at twice that (--strength=2): state it.",
    ),
    measures=(
        measures.judge_accuracy({"paper's classifier, CelebA test": {"mean of all that it reads": 0.9089}}),
        measures.accuracy(),
        measures.untouched(),
        measures.together(),
        *measures.rank1(),
        measures.same_person(),
        measures.reconstruction(),
        measures.elsewhere(
            "Augmentation study",
            "Mean test accuracy of one CNN over the 13 attributes, trained without and with 13 edits of every image.",
            {"paper": {"before": 0.9378, "after": 0.9464}},
            "it trains classifiers, which `faceattr study augment` does",
            digits=4,
        ),
    ),
    steps=(
        Step("judge", "classifier_128", role="judge"),
        Step("attgan", "attgan_128"),
    ),
    augmentation="judge",
)
