// Services at the socket: a connection to a frontend is opened to one of its backends, so no packet of it is ever translated.
//
// The programs are at a cgroup and see the addresses that its processes connect to, send to, receive from and ask for. What is written
// in `frontends` and `backends` is decided by podnet (`podnet_ebpf::sockets`); what is not in there is left alone, and so is every
// protocol but TCP and UDP.
//
// A frontend's backends are the slots 0 to `count` of one list. Who writes fills new slots before the frontend counts them, and empties
// slots after it does not count them any more: so a slot that is missing has been taken away meanwhile, and the frontend is read again.
// Backends of UDP that end have the slots from `ENDING` on, up to the first that is missing: nobody comes there anew, and a socket that speaks
// with one goes on. Who writes lets a backend stand there before its other slot is another's.
//
// What a map gives up the kernel (from 6.1 on) uses for another element at once, whoever reads it. So what is read is copied, and it counts
// only where the map has the same a moment later. A frontend is looked at once more last of all: as long as it has a list, the list's slots
// are its own.
//
// What a socket speaks with is kept at the socket itself and ends with it.

#include "talk.h"

// How often a frontend is read because it or a slot was changed meanwhile.
#define ATTEMPTS 8
// Of clients that stay with their backend (sessionAffinity). The least recently used goes where there are more.
#define CLIENTS 32768
// Of connected sockets of UDP that are found when their backend goes; those beyond are counted (`unfollowed`).
#define CONNECTED_UDP 65536
// Of refusals that are counted apart; those beyond are counted together.
#define REFUSED 16384
#define SECOND 1000000000ULL
// <linux/socket.h>
#define AF_INET6 10
// The first of the slots with backends that end.
#define ENDING (1U << 30)
// The most slots that are looked at: a loop goes no further (BPF_MAX_LOOPS).
#define MOST_SLOTS (1U << 23)

#define ECONNREFUSED 111
// Instead of an error: there is no such frontend.
#define NO_FRONTEND -1

// Elements of `recording`: whether refusals are counted; how many found no room in `refused`.
#define IS_WANTED 0
#define WITHOUT_ROOM 1

struct frontend {
    // Its backends: slots of that list.
    __u32 list;
    __u32 count;
    // Where there are none: the error that connecting to it gives.
    __u32 refusal;
    // For how many seconds a client stays with its backend, of all frontends of the group; 0: it does not.
    __u32 affinity;
    __u32 group;
};

struct slot {
    __u32 list;
    __u32 number;
};

// Who uses a Service: all sockets of a namespace are one client.
struct client {
    __u64 netns;
    __u32 group;
    __u32 unused;
};

struct stay {
    struct choice choice;
    // When it was last used, in ns of `now`.
    __u64 used;
};

// Who was refused what. The port is the socket's own, in the machine's order; 0 where it has none yet, as one of TCP that is to be connected.
struct asker {
    __u64 netns;
    struct place to;
    __u32 port;
};

// How often, and with which error the last time. Times are in ns of `now`.
struct refusal {
    __u64 first;
    __u64 last;
    __u64 count;
    __u32 error;
    __u32 unused;
};

// The namespace of the node itself: only there the loopback's addresses are the node's.
struct settings {
    __u64 node;
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 16384);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct place);
    __type(value, struct frontend);
} frontends SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct slot);
    __type(value, struct place);
} backends SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, CLIENTS);
    __type(key, struct client);
    __type(value, struct stay);
} stays SEC(".maps");

// Sockets of UDP that are connected, by their cookies. The kernel shows what it keeps at sockets of TCP to whoever lists them, and not what
// it keeps at those of UDP.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, CONNECTED_UDP);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u64);
    __type(value, struct talk);
} connected_udp SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct settings);
} settings SEC(".maps");

// How many sockets were connected that are not found when their backend goes: there was no room for them.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, __u64);
} unfollowed SEC(".maps");

// What pods were refused while somebody records flows: no packet of it is ever sent, so that nobody else can tell.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, REFUSED);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct asker);
    __type(value, struct refusal);
} refused SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} recording SEC(".maps");

static __always_inline int same(const struct place *one, const struct place *other)
{
    return one->addr[3] == other->addr[3] && one->port == other->port && one->protocol == other->protocol &&
           one->addr[0] == other->addr[0] && one->addr[1] == other->addr[1] && one->addr[2] == other->addr[2];
}

static __always_inline int is_v4(const struct place *place)
{
    return place->addr[0] == 0 && place->addr[1] == 0 && place->addr[2] == bpf_htonl(0xffff);
}

static __always_inline struct place v4(struct bpf_sock_addr *ctx)
{
    struct place place = {.addr = {0, 0, bpf_htonl(0xffff), ctx->user_ip4}, .port = ctx->user_port, .protocol = ctx->protocol};
    return place;
}

static __always_inline struct place v6(struct bpf_sock_addr *ctx)
{
    struct place place = {.addr = {ctx->user_ip6[0], ctx->user_ip6[1], ctx->user_ip6[2], ctx->user_ip6[3]},
                          .port = ctx->user_port,
                          .protocol = ctx->protocol};
    return place;
}

static __always_inline void set_v4(struct bpf_sock_addr *ctx, const struct place *to)
{
    ctx->user_ip4 = to->addr[3];
    ctx->user_port = to->port;
}

static __always_inline void set_v6(struct bpf_sock_addr *ctx, const struct place *to)
{
    ctx->user_ip6[0] = to->addr[0];
    ctx->user_ip6[1] = to->addr[1];
    ctx->user_ip6[2] = to->addr[2];
    ctx->user_ip6[3] = to->addr[3];
    ctx->user_port = to->port;
}

// Frontends at loopback addresses are for whoever is in the node's own namespace. Whether `to` can be a frontend.
static __always_inline int is_ours(struct bpf_sock_addr *ctx, const struct place *to)
{
    if (to->protocol != IPPROTO_TCP && to->protocol != IPPROTO_UDP)
        return 0;
    int here = is_v4(to) && (to->addr[3] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
    int here_v6 = to->addr[0] == 0 && to->addr[1] == 0 && to->addr[2] == 0 && to->addr[3] == bpf_htonl(1);
    if (!here && !here_v6)
        return 1;
    __u32 first = 0;
    struct settings *known = bpf_map_lookup_elem(&settings, &first);
    return known && known->node == bpf_get_netns_cookie(ctx);
}

// What is sought in a list.
struct search {
    __u32 list;
    // How many slots of it are counted.
    __u32 count;
    __u32 found;
    struct choice choice;
};

static long compare(__u32 number, struct search *search)
{
    struct slot slot = {search->list, number};
    struct place *backend = bpf_map_lookup_elem(&backends, &slot);
    if (!backend || !same(backend, &search->choice.backend))
        return 0;
    search->choice.slot = number;
    search->found = 1;
    return 1;
}

// The same for the slots that are counted, and then those of backends that end.
static long compare_all(__u32 number, struct search *search)
{
    struct slot slot = {search->list, number};
    if (number >= search->count)
        slot.number = ENDING + (number - search->count);
    struct place *backend = bpf_map_lookup_elem(&backends, &slot);
    // The first hole is the end of those that end.
    if (!backend)
        return number >= search->count ? 1 : 0;
    if (!same(backend, &search->choice.backend))
        return 0;
    search->choice.slot = slot.number;
    search->found = 1;
    return 1;
}

// Whether the frontend still has the backend that was chosen, be it that it ends where that is asked for. As a rule it stands where it stood; the
// others are looked at where it does not.
static __always_inline int has(const struct frontend *frontend, int ending_too, struct choice *choice)
{
    struct slot slot = {frontend->list, choice->slot};
    if (choice->slot < frontend->count || (ending_too && choice->slot >= ENDING)) {
        struct place *backend = bpf_map_lookup_elem(&backends, &slot);
        if (backend && same(backend, &choice->backend))
            return 1;
    }
    struct search search = {.list = frontend->list, .count = frontend->count, .choice = *choice};
    if (ending_too)
        bpf_loop(MOST_SLOTS, compare_all, &search, 0);
    else
        bpf_loop(frontend->count, compare, &search, 0);
    if (search.found)
        choice->slot = search.choice.slot;
    return search.found;
}

// Whether the frontend is what was read of it.
static __always_inline int is_still(const struct place *to, const struct frontend *read)
{
    struct frontend *now = bpf_map_lookup_elem(&frontends, to);
    return now && now->list == read->list && now->count == read->count && now->refusal == read->refusal &&
           now->affinity == read->affinity && now->group == read->group;
}

// A backend by chance. Whether its slot was there, and is what was read.
static __always_inline int draw(const struct frontend *frontend, struct choice *choice)
{
    struct slot slot = {frontend->list, bpf_get_prandom_u32() % frontend->count};
    struct place *backend = bpf_map_lookup_elem(&backends, &slot);
    if (!backend)
        return 0;
    choice->backend = *backend;
    choice->slot = slot.number;
    backend = bpf_map_lookup_elem(&backends, &slot);
    return backend && same(backend, &choice->backend);
}

// The backend that the client had last time, where it is not too long ago. Another processor may have written a time that is to come for this one.
static __always_inline int stays_with(const struct client *client, const struct frontend *frontend, __u64 now,
                                      struct choice *choice)
{
    struct stay *former = bpf_map_lookup_elem(&stays, client);
    if (!former || (__s64)(now - former->used) >= (__s64)(frontend->affinity * SECOND))
        return 0;
    *choice = former->choice;
    if (!has(frontend, 0, choice))
        return 0;
    former->used = now;
    return 1;
}

// One of the frontend's backends: the former one as long as it is one, the one that the client stays with (sessionAffinity), or one by chance.
// 0, or why there is none.
static __always_inline int find(struct bpf_sock_addr *ctx, const struct place *to, const struct choice *former,
                                struct choice *choice)
{
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct frontend *found = bpf_map_lookup_elem(&frontends, to);
        if (!found)
            return NO_FRONTEND;
        struct frontend frontend = *found;
        if (!frontend.count) {
            if (is_still(to, &frontend))
                return frontend.refusal;
            continue;
        }
        if (former) {
            *choice = *former;
            // Also where it ends: what was asked is answered there, and whoever is in the middle of something goes on.
            if (has(&frontend, 1, choice)) {
                if (is_still(to, &frontend))
                    return 0;
                continue;
            }
        }
        struct client client = {0, frontend.group, 0};
        __u64 now = 0;
        int stays_there = 0;
        if (frontend.affinity) {
            client.netns = bpf_get_netns_cookie(ctx);
            now = bpf_ktime_get_coarse_ns();
            stays_there = stays_with(&client, &frontend, now, choice);
        }
        if ((!stays_there && !draw(&frontend, choice)) || !is_still(to, &frontend))
            continue;
        if (frontend.affinity && !stays_there) {
            struct stay stay = {.choice = *choice, .used = now};
            bpf_map_update_elem(&stays, &client, &stay, BPF_ANY);
        }
        return 0;
    }
    return ECONNREFUSED;
}

// Counts a refusal, where that is wanted. What processes of the node itself are refused is no pod's. Not inlined: room on the stack is scarce
// where it is called.
static __attribute__((noinline)) int note(struct bpf_sock_addr *ctx, const struct place *to, int error)
{
    __u32 element = IS_WANTED;
    __u64 *wanted = bpf_map_lookup_elem(&recording, &element);
    if (!wanted || !*wanted)
        return 0;
    struct asker asker = {.netns = bpf_get_netns_cookie(ctx), .to = *to, .port = 0};
    __u32 first = 0;
    struct settings *known = bpf_map_lookup_elem(&settings, &first);
    if (known && known->node == asker.netns)
        return 0;
    if (ctx->sk)
        asker.port = ctx->sk->src_port;
    __u64 now = bpf_ktime_get_coarse_ns();
    struct refusal *refusal = bpf_map_lookup_elem(&refused, &asker);
    if (!refusal) {
        struct refusal begun = {.first = now, .last = now, .count = 0, .error = error, .unused = 0};
        bpf_map_update_elem(&refused, &asker, &begun, BPF_NOEXIST);
        refusal = bpf_map_lookup_elem(&refused, &asker);
    }
    if (!refusal) {
        element = WITHOUT_ROOM;
        __u64 *lost = bpf_map_lookup_elem(&recording, &element);
        if (lost)
            __sync_fetch_and_add(lost, 1);
        return 0;
    }
    __sync_fetch_and_add(&refusal->count, 1);
    refusal->last = now;
    refusal->error = error;
    return 0;
}

static __always_inline int refuse(struct bpf_sock_addr *ctx, const struct place *to, int error)
{
    note(ctx, to, error);
    bpf_set_retval(-error);
    return 0;
}

static __always_inline void count_unfollowed(void)
{
    __u32 first = 0;
    __u64 *count = bpf_map_lookup_elem(&unfollowed, &first);
    if (count)
        __sync_fetch_and_add(count, 1);
}

// Whether the connection is let through, `to` then being where it goes.
static __always_inline int connect(struct bpf_sock_addr *ctx, struct place *to)
{
    if (!is_ours(ctx, to))
        return 1;
    struct talk talk = {.frontend = *to};
    int refusal = find(ctx, to, 0, &talk.choice);
    if (refusal == NO_FRONTEND) {
        // A socket can be connected again.
        if (ctx->sk && !bpf_sk_storage_delete(&connected, ctx->sk) && to->protocol == IPPROTO_UDP) {
            __u64 cookie = bpf_get_socket_cookie(ctx);
            bpf_map_delete_elem(&connected_udp, &cookie);
        }
        return 1;
    }
    if (refusal)
        return refuse(ctx, to, refusal);
    if (ctx->sk) {
        struct talk *kept = bpf_sk_storage_get(&connected, ctx->sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        long failed = !kept;
        if (kept)
            *kept = talk;
        if (to->protocol == IPPROTO_UDP) {
            __u64 cookie = bpf_get_socket_cookie(ctx);
            failed = bpf_map_update_elem(&connected_udp, &cookie, &talk, BPF_ANY);
        }
        if (failed)
            count_unfollowed();
    }
    *to = talk.choice.backend;
    return 2;
}

SEC("cgroup/connect4")
int podnet_connect4(struct bpf_sock_addr *ctx)
{
    struct place to = v4(ctx);
    int verdict = connect(ctx, &to);
    if (verdict == 2)
        set_v4(ctx, &to);
    return verdict != 0;
}

SEC("cgroup/connect6")
int podnet_connect6(struct bpf_sock_addr *ctx)
{
    struct place to = v6(ctx);
    int verdict = connect(ctx, &to);
    if (verdict == 2)
        set_v6(ctx, &to);
    return verdict != 0;
}

// A backend that is spoken to at its own address answers as itself, and not as the frontend that the socket spoke with before.
static __always_inline void forget_talks(struct bpf_sock_addr *ctx, const struct place *to)
{
    struct bpf_sock *sk = ctx->sk;
    struct talks *talks = sk ? bpf_sk_storage_get(&spoken, sk, 0, 0) : 0;
    if (!talks)
        return;
    for (int number = 0; number < TALKS; number++)
        if (same(&talks->all[number].choice.backend, to))
            talks->all[number] = (struct talk){};
}

static __always_inline struct talk *talk_with(struct talks *talks, const struct place *frontend)
{
    for (int number = 0; number < TALKS; number++)
        if (same(&talks->all[number].frontend, frontend))
            return &talks->all[number];
    return 0;
}

// The backend that the socket sends this frontend's datagrams to as long as it is one: a conversation is not torn apart.
static __always_inline int send(struct bpf_sock_addr *ctx, struct place *to)
{
    if (!is_ours(ctx, to))
        return 1;
    struct frontend *frontend = bpf_map_lookup_elem(&frontends, to);
    if (!frontend) {
        forget_talks(ctx, to);
        return 1;
    }
    if (!ctx->sk)
        return 1;
    // A connected socket hears its peer alone, also where it names again whom it sends to, and where nobody comes to that backend anew. When that
    // connection ends the plan decides. What is kept of a peer stays where the socket is connected to nobody any more; one of IPv6 hears nobody else
    // then either (Linux, `__udp_disconnect` leaves sk_v6_daddr as it is).
    struct talk *peer = bpf_sk_storage_get(&connected, ctx->sk, 0, 0);
    int is_bound = peer && (ctx->sk->state == BPF_TCP_ESTABLISHED || ctx->family == AF_INET6);
    if (is_bound && same(&peer->frontend, to)) {
        struct frontend read = *frontend;
        if (!read.count && is_still(to, &read))
            return refuse(ctx, to, read.refusal);
        *to = peer->choice.backend;
        return 2;
    }
    struct talks *talks = bpf_sk_storage_get(&spoken, ctx->sk, 0, frontend->count ? BPF_SK_STORAGE_GET_F_CREATE : 0);
    struct choice former = {}, choice = {};
    struct talk *before = talks ? talk_with(talks, to) : 0;
    int has_former = before != 0;
    // The kernel would verify all that follows for each place where the pointer can be, and take a second for that: nothing keeps it.
    asm volatile("" : "+r"(has_former));
    if (before)
        former = before->choice;
    int refusal = find(ctx, to, has_former ? &former : 0, &choice);
    if (refusal == NO_FRONTEND)
        return 1;
    if (refusal)
        return refuse(ctx, to, refusal);
    if (talks) {
        struct talk *talk = talk_with(talks, to);
        if (!talk)
            talk = &talks->all[talks->next++ % TALKS];
        talk->frontend = *to;
        talk->choice = choice;
    }
    *to = choice.backend;
    return 2;
}

SEC("cgroup/sendmsg4")
int podnet_sendmsg4(struct bpf_sock_addr *ctx)
{
    struct place to = v4(ctx);
    int verdict = send(ctx, &to);
    if (verdict == 2)
        set_v4(ctx, &to);
    return verdict != 0;
}

SEC("cgroup/sendmsg6")
int podnet_sendmsg6(struct bpf_sock_addr *ctx)
{
    struct place to = v6(ctx);
    int verdict = send(ctx, &to);
    if (verdict == 2)
        set_v6(ctx, &to);
    return verdict != 0;
}

// Whether `from` is a backend that the socket is connected to; it is then the frontend.
static __always_inline int is_peer(struct bpf_sock_addr *ctx, struct place *from)
{
    if (!ctx->sk)
        return 0;
    struct talk *talk = bpf_sk_storage_get(&connected, ctx->sk, 0, 0);
    if (!talk || !same(&talk->choice.backend, from))
        return 0;
    *from = talk->frontend;
    return 1;
}

// Whether `from` is a backend that the socket speaks with; it is then the frontend.
static __always_inline int is_known(struct bpf_sock_addr *ctx, struct place *from)
{
    if (is_peer(ctx, from))
        return 1;
    if (!ctx->sk)
        return 0;
    struct talks *talks = bpf_sk_storage_get(&spoken, ctx->sk, 0, 0);
    if (!talks)
        return 0;
    for (int number = 0; number < TALKS; number++)
        if (same(&talks->all[number].choice.backend, from)) {
            *from = talks->all[number].frontend;
            return 1;
        }
    return 0;
}

SEC("cgroup/recvmsg4")
int podnet_recvmsg4(struct bpf_sock_addr *ctx)
{
    struct place from = v4(ctx);
    if (is_known(ctx, &from))
        set_v4(ctx, &from);
    return 1;
}

SEC("cgroup/recvmsg6")
int podnet_recvmsg6(struct bpf_sock_addr *ctx)
{
    struct place from = v6(ctx);
    if (is_known(ctx, &from))
        set_v6(ctx, &from);
    return 1;
}

SEC("cgroup/getpeername4")
int podnet_peer4(struct bpf_sock_addr *ctx)
{
    struct place peer = v4(ctx);
    if (is_peer(ctx, &peer))
        set_v4(ctx, &peer);
    return 1;
}

SEC("cgroup/getpeername6")
int podnet_peer6(struct bpf_sock_addr *ctx)
{
    struct place peer = v6(ctx);
    if (is_peer(ctx, &peer))
        set_v6(ctx, &peer);
    return 1;
}

SEC("cgroup/sock_release")
int podnet_release(struct bpf_sock *ctx)
{
    if (ctx->protocol == IPPROTO_UDP) {
        __u64 cookie = bpf_get_socket_cookie(ctx);
        bpf_map_delete_elem(&connected_udp, &cookie);
    }
    return 1;
}
