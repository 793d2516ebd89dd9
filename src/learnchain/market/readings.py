"""What BaaS leaves open or says twice, and what the marketplace does about it."""

from learnchain.rules.reading import Reading

READINGS = (
    Reading(
        "BAAS-R1",
        "Eq. 5 bounds the block of A that belongs to a label by 'sum |l_k| < i', where i runs over features; W_i is 'a "
        "diagonal weight matrix' of dimensions (|f_i|, |l_i|)",
        "The block of model p in Eq. 3 and Eq. 5 has the rows of p's features and the columns of p's labels, and is "
        "dense.",
        "A sum over features cannot be bounded by counts of labels, and a diagonal of a 500 x 10 matrix would read ten "
        "features of five hundred.",
        "baas/equations/5.json",
    ),
    Reading(
        "BAAS-R2",
        "B_init stacks n identities of size d (Eq. 4), so every model has all d labels; the hidden layer has sum |l_i| "
        "units, and Table II gives the contributors 5 or 6 labels of 10",
        "Eq. 4 as printed is the default: n identities of size d, and |l_i| = d (`literal`). A task may ask for "
        "`by_label`: a model has units for the labels of its own data alone.",
        "All models of Table I have ten outputs; what a verifier reports is the same to a few tenths of a percent "
        "with five models, but one model by label can say only what it has seen.",
        "baas/equations/4.json",
    ),
    Reading(
        "BAAS-R3",
        "A model is rewarded if it 'improves overall performance' (III-A), or if the accuracy 'exceeds the minimum "
        "acceptable fitness rate'",
        "`gain`, the default: a majority reports at least that rate above the accepted fusion; `absolute`: a majority "
        "reports at least that rate for the fusion.",
        "With a gain each model is paid for what it adds; the first model is compared with nothing.",
        "baas/votes/readings.json",
    ),
)
