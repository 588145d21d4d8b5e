/* The pod sandbox's first process: it holds the pod's namespaces open and reaps the orphans that end up with it. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void stop(int number) { _exit(number == SIGTERM || number == SIGINT ? 0 : 1); }

static void reap(int number) {
    (void)number;
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int main(int count, char **words) {
    /* `kubeadm upgrade` runs the image with -v and waits for its end. */
    if (count == 2 && !strcmp(words[1], "-v"))
        return puts("pause") < 0;
    struct sigaction on_stop = {.sa_handler = stop}, on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    if (sigaction(SIGINT, &on_stop, NULL) || sigaction(SIGTERM, &on_stop, NULL) || sigaction(SIGCHLD, &on_child, NULL))
        return EXIT_FAILURE;
    for (;;)
        pause();
}
