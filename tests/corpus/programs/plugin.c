/* What plugin_host loads. */
#include "burn.h"

OWN_FRAME uint64_t plugin_work(uint64_t state, int depth)
{
    if (depth == 0)
        return churn(state, 20000);
    return plugin_work(state + (uint64_t)depth, depth - 1) ^ state;
}
