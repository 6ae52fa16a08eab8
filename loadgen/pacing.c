/* SPDX-License-Identifier: MIT */
#include "pacing.h"

void pacing_init(struct pacing *pacing, uint64_t limit, int worker, int workers) {
    uint64_t all = (uint64_t)workers;

    pacing->limited = limit > 0;
    pacing->left = limit / all + ((uint64_t)worker < limit % all);
}

bool pacing_is_exhausted(const struct pacing *pacing, enum phase phase) {
    return phase == PHASE_DRAIN || (phase == PHASE_MEASURED && pacing->limited && pacing->left == 0);
}

bool pacing_begin(struct pacing *pacing, enum phase phase) {
    if (pacing_is_exhausted(pacing, phase))
        return false;
    if (phase == PHASE_MEASURED && pacing->limited)
        pacing->left--;
    return true;
}
