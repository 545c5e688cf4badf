// What a socket speaks with through a Service: written by the programs at sockets, read by those that count flows.
#pragma once

#include "kernel.h"

// How many Services one socket of UDP can speak with at a time, without being connected, and be told the right senders of.
#define TALKS 16

// An address, port and protocol. One of IPv4 as IPv6 writes it (::ffff:a.b.c.d). All but the protocol in network order.
struct place {
    __be32 addr[4];
    __be16 port;
    __u16 protocol;
};

// A backend that was chosen, and where it stood in the list.
struct choice {
    struct place backend;
    __u32 slot;
};

// What a socket wanted to speak with, and what it speaks with.
struct talk {
    struct place frontend;
    struct choice choice;
};

struct talks {
    struct talk all[TALKS];
    __u32 next;
};

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct talk);
} connected SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_SK_STORAGE);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, int);
    __type(value, struct talks);
} spoken SEC(".maps");
