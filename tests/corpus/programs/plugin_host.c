/* Loads a plug-in after its start and works inside it.
 * plugin_host CPU_SECONDS PLUGIN */
#include "burn.h"

#include <dlfcn.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    const double seconds = seconds_argument(argc, argv);
    void *plugin = argc > 2 ? dlopen(argv[2], RTLD_NOW) : NULL;
    uint64_t (*work)(uint64_t, int);
    if (!plugin || !(*(void **)&work = dlsym(plugin, "plugin_work"))) {
        fprintf(stderr, "%s\n", dlerror());
        return 1;
    }
    uint64_t state = 88172645463325252u;
    while (cpu_seconds() < seconds)
        state = work(state, 20) | 1;
    return state == 0;
}
