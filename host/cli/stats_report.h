// SPDX-License-Identifier: MIT
// Statistics files as texts: what calibrate and info print.
#ifndef CLQ_CLI_STATS_REPORT_H
#define CLQ_CLI_STATS_REPORT_H

#include "calib/stats.h"
#include "cli/cli.h"

// "attn_q" of "blk.3.attn_q.weight", in a buffer of at least 64 bytes.
const char *clq_site_label(const clq_stat_site *site, char text[64]);
// The largest |x| of all matrices.
float clq_site_absmax(const clq_stat_site *site);
// Members of a JSON object: what the whole is about, and "sites".
void clq_stats_json(json_t *object, const clq_stats_file *stats);
// What `clquant info` prints; sites: one line for each.
void clq_stats_print(const clq_stats_file *stats, bool sites);

// A layer that is done, or a site, if it has experts: "; 64 experts: 3 without tokens, else 1 to 512" in a buffer of
// at least 96 bytes; "" without experts.
const char *clq_experts_text(const clq_stat_site *sites, uint32_t n, char text[96]);

#endif
