/* What a name's addresses are, by the resolver of the C library that this is linked with. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    char text[INET6_ADDRSTRLEN];
    if (argc != 2) return 64;
    if (getaddrinfo(argv[1], NULL, &hints, &found) != 0) return puts("nothing"), 0;
    for (; found; found = found->ai_next) {
        void *addr = found->ai_family == AF_INET ? (void *)&((struct sockaddr_in *)found->ai_addr)->sin_addr
                                                 : (void *)&((struct sockaddr_in6 *)found->ai_addr)->sin6_addr;
        puts(inet_ntop(found->ai_family, addr, text, sizeof text));
    }
    return 0;
}
