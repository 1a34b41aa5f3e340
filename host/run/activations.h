// SPDX-License-Identifier: MIT
// Which of a folder's weights round their inputs to int8, and how.
#ifndef CLQ_RUN_ACTIVATIONS_H
#define CLQ_RUN_ACTIVATIONS_H

#include "calib/stats.h"
#include "run/plan.h"

// The options about activations: CLQ_USAGE where they make no sense together, or for the output.
clq_status clq_plan_check_activations(const clq_plan *plan, clq_error *err);
// Gives the entries, whose types are chosen, their activation and the parts of it. stats: NULL without --stats.
clq_status clq_plan_set_activations(clq_plan *plan, const clq_stats_file *stats, clq_error *err);

#endif
