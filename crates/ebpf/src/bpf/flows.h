// Counting flows at pods' interfaces: one entry for each interface and five-tuple as the pod sees it, with the counters of both directions.
//
// The map is the truth. What ends, or takes the place of an ended one, rings besides; where the ring is full, that is counted, and a later
// reading of the map makes it good: what would take an ended entry's place goes on in that entry then, so that no packet is lost, and is missed as a
// connection.
#pragma once

#include "kernel.h"
#ifdef ASKED
#include "talk.h"
#endif

// RFC 9293, section 3.1
#define TCP_ACK 0x10
// How many extension headers of IPv6 are passed over (RFC 8200, section 4.1).
#define EXTENSIONS 4
// Chunks of SCTP: INIT, ABORT, SHUTDOWN COMPLETE (RFC 9260, section 3.2).
#define SCTP_INIT 1
#define SCTP_ABORT 6
#define SCTP_SHUTDOWN_COMPLETE 14
// Beside the flags of TCP in `struct way`: `next` is known.
#define NEXT_KNOWN 0x100
// What `settings` says: only flows to addresses in `ranges` count.
#define ONLY_RANGES 1
// Who sent an error of ICMP: whom the packet was for, or somebody on its way. It may have been too large for a link besides.
#define ERROR_BY_DESTINATION 1
#define ERROR_ON_THE_WAY 2
#define ERROR_TOO_BIG 4

struct flow_key {
    __u32 device;
    // Of IPv4 as IPv4-mapped addresses (RFC 4291, section 2.5.5.2).
    __be32 local[4];
    __be32 remote[4];
    __be16 local_port;
    __be16 remote_port;
    __u32 protocol;
};

struct way {
    __u64 packets;
    __u64 bytes;
    // The next sequence number of TCP.
    __u32 next;
    __u32 retransmissions;
    __u32 resets;
    // All flags of TCP that were seen; of SCTP, TCP_SYN stands for an INIT.
    __u32 flags;
};

struct counted {
    // ns of CLOCK_MONOTONIC.
    __u64 first;
    __u64 last;
    // The first SYN.
    __u64 opened;
    // From the pod, to the pod.
    struct way ways[2];
    // µs from the first SYN to its sender's first acknowledgement.
    __u32 handshake;
    __u8 remote_began;
    __u8 ended;
    // Which directions sent FIN.
    __u8 finished;
    __u8 padding;
    // The frontend of a Service that the pod's socket asked for; port 0: none that is known.
    __be32 asked[4];
    __be16 asked_port;
    // The last error of ICMP about a packet of who began it: who sent it, its type and code; 0: none, or packets were answered since. Older
    // programs leave zeros here.
    __u8 error_by;
    __u8 error_type;
    __u8 error_code;
    __u8 unused[3];
};

_Static_assert(sizeof(struct counted) == 120 && __builtin_offsetof(struct counted, error_by) == 114, "flows.rs reads it in another way");

enum { ENDED = 1, REPLACED };

struct bell {
    __u32 kind;
    struct flow_key key;
    struct counted counted;
};

// What was not counted since there was no room, and connections that were counted as one with the one before.
struct missed {
    __u64 packets;
    __u64 bytes;
    __u64 connections;
};

// A bit for each flow without room that no protocol opens, by its hash: how many are set tells how many flows there were, about (linear counting;
// Whang, Vander-Zanden and Taylor, 1990).
#define MARK_WORDS 1024
struct marks {
    __u64 words[MARK_WORDS];
};

struct range {
    __u32 length;
    __be32 addr[4];
};

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 262144);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct flow_key);
    __type(value, struct counted);
} flow_entries SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_RINGBUF);
    __uint(max_entries, 4194304);
} flow_bells SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 4096);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct missed);
} flow_missed SEC(".maps");

// By device, while any flow of it finds no room; whoever reads takes them out.
struct {
    __uint(type, BPF_MAP_TYPE_HASH);
    __uint(max_entries, 1024);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, __u32);
    __type(value, struct marks);
} flow_marks SEC(".maps");

// With no bit set, as each begins: no stack has room for one.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct marks);
} flow_blank SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LPM_TRIE);
    __uint(max_entries, 65536);
    __uint(map_flags, BPF_F_NO_PREALLOC);
    __type(key, struct range);
    __type(value, __u32);
} flow_ranges SEC(".maps");

// [0]: ONLY_RANGES or 0; [1]: bells that found no room.
struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 2);
    __type(key, __u32);
    __type(value, __u64);
} flow_settings SEC(".maps");

// A new entry before it is in the map: too large for the stack beside that of the fast path.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct counted);
} flow_fresh SEC(".maps");

static long (*bpf_skb_load_bytes)(const struct __sk_buff *skb, __u32 offset, void *to, __u32 len) = (void *)BPF_FUNC_skb_load_bytes;
static __u64 (*bpf_ktime_get_ns)(void) = (void *)BPF_FUNC_ktime_get_ns;
static void *(*bpf_ringbuf_reserve)(void *ringbuf, __u64 size, __u64 flags) = (void *)BPF_FUNC_ringbuf_reserve;
static void (*bpf_ringbuf_submit)(void *data, __u64 flags) = (void *)BPF_FUNC_ringbuf_submit;

// A packet as far as it is counted.
struct seen {
    struct flow_key key;
    __u32 seq;
    __u32 payload;
    __u32 packets;
    __u32 bytes;
    // Where an error of ICMP begins in the packet; 0: it is none.
    __u32 error;
    __u8 flags;
    // The first one of SCTP.
    __u8 chunk;
    // The direction: 0 from the pod, 1 to it.
    __u8 into;
    // It opens a connection that goes on in the entry of one that has ended.
    __u8 merged;
    // Flows with that other end are asked for.
    __u8 wanted;
    // A fragment whose first one is known: what an error says of that one holds for it, too.
    __u8 later;
};

// Which fragment of a datagram a packet is: the first one shows the ports, and later ones do not. 0: it is whole.
enum { FIRST_FRAGMENT = 1, LATER_FRAGMENT };

struct fragment {
    __u32 place;
    // What all fragments of the datagram have between their addresses: the identification, of IPv4 with the protocol (RFC 791, section 3.2; RFC 8200,
    // section 4.5).
    __u32 id;
};

// Copies `length` bytes of a packet from `at`, which is a multiple of four behind the Ethernet header and not beyond 16383: without a call where the
// packet's first part has them. 0: done.
static __always_inline long load(struct __sk_buff *skb, __u32 at, void *to, __u32 length)
{
    __u64 offset = at;
    // The verifier has to see that it is not far, and that what is compared is what is read.
    asm volatile("%0 &= 16383" : "+r"(offset));
    __u8 *from = (__u8 *)(long)skb->data + offset;
    asm volatile("" : "+r"(from));
    if (from + length <= (__u8 *)(long)skb->data_end) {
        __builtin_memcpy(to, __builtin_assume_aligned(from, 4), length);
        return 0;
    }
    return bpf_skb_load_bytes(skb, at, to, length);
}

static __always_inline int ring(__u32 kind, struct flow_key *key, struct counted *counted)
{
    struct bell *bell = bpf_ringbuf_reserve(&flow_bells, sizeof(*bell), 0);
    if (!bell) {
        __u32 second = 1;
        __u64 *lost = bpf_map_lookup_elem(&flow_settings, &second);
        if (lost)
            __sync_fetch_and_add(lost, 1);
        return 0;
    }
    bell->kind = kind;
    bell->key = *key;
    bell->counted = *counted;
    // Whoever reads comes by itself every now and then: waking it for each would cost more than the flow.
    bpf_ringbuf_submit(bell, BPF_RB_NO_WAKEUP);
    return 1;
}

// It opens a connection, or an association.
static __always_inline int opens(struct seen *seen)
{
    if (seen->key.protocol == IPPROTO_SCTP)
        return seen->chunk == SCTP_INIT;
    return seen->key.protocol == IPPROTO_TCP && (seen->flags & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

static __always_inline __u64 stir(__u64 hash, __u64 more)
{
    hash = (hash ^ more) * 0xff51afd7ed558ccdULL;
    return hash ^ hash >> 32;
}

static __always_inline __u64 stir_addr(__u64 hash, __be32 *addr)
{
    hash = stir(hash, (__u64)addr[0] << 32 | addr[1]);
    return stir(hash, (__u64)addr[2] << 32 | addr[3]);
}

static __always_inline void mark(struct seen *seen)
{
    __u32 device = seen->key.device, first = 0;
    struct marks *marks = bpf_map_lookup_elem(&flow_marks, &device);
    if (!marks) {
        struct marks *blank = bpf_map_lookup_elem(&flow_blank, &first);
        if (!blank)
            return;
        bpf_map_update_elem(&flow_marks, &device, blank, BPF_NOEXIST);
        marks = bpf_map_lookup_elem(&flow_marks, &device);
    }
    if (!marks)
        return;
    // Ports that follow one another must not lie evenly: the estimate is of what chance would do.
    __u64 hash = stir(seen->key.protocol, (__u32)seen->key.local_port << 16 | seen->key.remote_port);
    hash = stir(stir_addr(stir_addr(hash, seen->key.local), seen->key.remote), device);
    __u64 *word = &marks->words[hash >> 54 & (MARK_WORDS - 1)], bit = 1ULL << (hash >> 48 & 63);
    // Not in one step: to lose one to another processor once in millions is nothing to an estimate, and an older instruction set has no such step.
    if (!(*word & bit))
        *word |= bit;
}

static __always_inline void miss(struct seen *seen)
{
    __u32 device = seen->key.device;
    struct missed none = {0}, *missed = bpf_map_lookup_elem(&flow_missed, &device);
    if (!missed) {
        bpf_map_update_elem(&flow_missed, &device, &none, BPF_NOEXIST);
        missed = bpf_map_lookup_elem(&flow_missed, &device);
    }
    if (!missed)
        return;
    if (!seen->merged) {
        __sync_fetch_and_add(&missed->packets, seen->packets);
        __sync_fetch_and_add(&missed->bytes, seen->bytes);
    }
    if (opens(seen))
        __sync_fetch_and_add(&missed->connections, 1);
    else if (seen->key.protocol != IPPROTO_TCP && seen->key.protocol != IPPROTO_SCTP)
        mark(seen);
}

// A message of ICMP goes by its type; an echo by its identifier besides, and a reply by the type of its request.
static __always_inline void name_message(struct seen *seen, __u32 protocol, __u8 *head)
{
    __u8 request = protocol == IPPROTO_ICMP ? 8 : 128, reply = protocol == IPPROTO_ICMP ? 0 : 129;
    __u8 echo = head[0] == request || head[0] == reply;
    seen->key.local_port = echo ? *(__be16 *)(head + 4) : 0;
    seen->key.remote_port = bpf_htons(echo ? request : head[0]);
}

// Destination unreachable, time exceeded (RFC 792); unreachable, too big, time exceeded, parameter problem (RFC 4443, section 3).
static __always_inline int is_error(__u32 protocol, __u8 type)
{
    return protocol == IPPROTO_ICMP ? type == 3 || type == 11 : type >= 1 && type <= 4;
}

// How much it is, whose transport's header is at `at` and has `own` bytes: as many packets as leave by a link that takes no larger ones.
static __always_inline void measure(struct __sk_buff *skb, struct seen *seen, __u32 at, __u32 own)
{
    seen->payload = skb->len - at > own ? skb->len - at - own : 0;
    if (skb->gso_size && skb->gso_segs > 1) {
        seen->packets = skb->gso_segs;
        seen->bytes += (seen->packets - 1) * (at - ETH_HLEN + own);
    }
}

// Reads what is behind the IP headers at `at`. 0: it does not count.
static __always_inline int read_transport(struct __sk_buff *skb, struct seen *seen, __u32 protocol, __u32 at)
{
    __be16 *near = seen->into ? &seen->key.remote_port : &seen->key.local_port;
    __be16 *far = seen->into ? &seen->key.local_port : &seen->key.remote_port;
    __u8 head[16] __attribute__((aligned(8)));
    __u32 own = 8;
    seen->key.protocol = protocol;
    if (protocol == IPPROTO_TCP) {
        if (load(skb, at, head, 16))
            return 1;
        own = (head[12] >> 4) * 4;
        seen->flags = head[13];
        seen->seq = bpf_htonl(*(__be32 *)(head + 4));
        *near = *(__be16 *)head;
        *far = *(__be16 *)(head + 2);
    } else if (protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) {
        if (load(skb, at, head, 8))
            return 1;
        *near = *(__be16 *)head;
        *far = *(__be16 *)(head + 2);
        // It is behind the common header.
        if (protocol == IPPROTO_SCTP && !bpf_skb_load_bytes(skb, at + 12, head, 1))
            seen->chunk = head[0];
    } else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
        if (bpf_skb_load_bytes(skb, at, head, 8))
            return 1;
        __u8 type = head[0];
        // Neighbours and listeners to groups: between a pod and its link.
        if (protocol == IPPROTO_ICMPV6 && ((type >= 130 && type <= 137) || type == 143))
            return 0;
        name_message(seen, protocol, head);
        if (is_error(protocol, type))
            seen->error = at;
    }
    measure(skb, seen, at, own);
    return 1;
}

// Reads of a packet that an error quotes whose it is: no more than eight bytes behind the IP headers are sure (RFC 792). 0: it is not known.
static __always_inline int read_quoted(struct __sk_buff *skb, struct seen *seen, __u32 protocol, __u32 at)
{
    __be16 *near = seen->into ? &seen->key.remote_port : &seen->key.local_port;
    __be16 *far = seen->into ? &seen->key.local_port : &seen->key.remote_port;
    __u8 head[8] __attribute__((aligned(8)));
    seen->key.protocol = protocol;
    if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
        return 0;
    if (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP || protocol == IPPROTO_SCTP) {
        *near = *(__be16 *)head;
        *far = *(__be16 *)(head + 2);
    } else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
        name_message(seen, protocol, head);
    }
    return 1;
}

static __always_inline void mapped(__be32 *addr, __be32 v4)
{
    addr[0] = addr[1] = 0;
    addr[2] = bpf_htonl(0xffff);
    addr[3] = v4;
}

// Only flows whose other end may be a pod, if that is what is asked for.
static __always_inline int is_wanted(struct seen *seen)
{
    __u32 first = 0;
    __u64 *settings = bpf_map_lookup_elem(&flow_settings, &first);
    if (!settings || !(*settings & ONLY_RANGES))
        return 1;
    struct range range = {.length = 128};
    __builtin_memcpy(range.addr, seen->key.remote, 16);
    return bpf_map_lookup_elem(&flow_ranges, &range) != 0;
}

// Whether the rest of a packet between these addresses need not be read. Others may quote one that counts (ICMP), and headers before the last one do
// not tell.
static __always_inline int is_passed_over(struct seen *seen, __u32 protocol)
{
    seen->wanted = is_wanted(seen);
    return !seen->wanted && (protocol == IPPROTO_TCP || protocol == IPPROTO_UDP);
}

// Reads a packet whose IP header is at `from`, and sets `fragment` where it is one; without that (0), one that is quoted there.
static __always_inline int see_v4(struct __sk_buff *skb, struct seen *seen, __u32 from, struct fragment *fragment)
{
    int quoted = !fragment;
    struct iphdr ip;
    if (quoted ? bpf_skb_load_bytes(skb, from, &ip, sizeof(ip)) : load(skb, from, &ip, sizeof(ip)))
        return 0;
    mapped(seen->key.local, seen->into ? ip.daddr : ip.saddr);
    mapped(seen->key.remote, seen->into ? ip.saddr : ip.daddr);
    seen->key.protocol = ip.protocol;
    if (!quoted && is_passed_over(seen, ip.protocol))
        return 0;
    // Something of the datagram follows, or something is before it.
    if (ip.frag_off & bpf_htons(0x3fff)) {
        int later = (ip.frag_off & bpf_htons(0x1fff)) != 0;
        if (fragment) {
            fragment->place = later ? LATER_FRAGMENT : FIRST_FRAGMENT;
            fragment->id = (__u32)ip.protocol << 16 | ip.id;
        }
        if (later)
            return 1;
    }
    __u32 at = from + (*(__u8 *)&ip & 0xf) * 4;
    return quoted ? read_quoted(skb, seen, ip.protocol, at) : read_transport(skb, seen, ip.protocol, at);
}

static __always_inline int see_v6(struct __sk_buff *skb, struct seen *seen, __u32 from, struct fragment *fragment)
{
    int quoted = !fragment;
    struct ipv6hdr ip;
    if (quoted ? bpf_skb_load_bytes(skb, from, &ip, sizeof(ip)) : load(skb, from, &ip, sizeof(ip)))
        return 0;
    __builtin_memcpy(seen->key.local, seen->into ? &ip.daddr : &ip.saddr, 16);
    __builtin_memcpy(seen->key.remote, seen->into ? &ip.saddr : &ip.daddr, 16);
    if (!quoted && is_passed_over(seen, ip.nexthdr))
        return 0;
    __u32 next = ip.nexthdr, at = from + sizeof(ip);
    for (int count = 0; count < EXTENSIONS; count++) {
        __u8 head[8] __attribute__((aligned(8)));
        // Hop-by-hop, routing, destination options; fragment. None is shorter than eight bytes.
        if (next != 0 && next != 43 && next != 60 && next != 44)
            break;
        if (bpf_skb_load_bytes(skb, at, head, sizeof(head)))
            break;
        // One that is all of its datagram is none (RFC 6946).
        if (next == 44 && (head[2] || head[3] & 0xf9)) {
            int later = head[2] || head[3] & 0xf8;
            if (fragment) {
                fragment->place = later ? LATER_FRAGMENT : FIRST_FRAGMENT;
                fragment->id = *(__be32 *)(head + 4);
            }
            if (later) {
                seen->key.protocol = head[0];
                return 1;
            }
        }
        at += next == 44 ? 8 : (head[1] + 1) * 8;
        next = head[0];
    }
    return quoted ? read_quoted(skb, seen, next, at) : read_transport(skb, seen, next, at);
}

// Who began it: whoever sends the SYN, or, in the middle of it, whoever does not have the one port below 1024; else who is seen first.
static __always_inline __u8 remote_began(struct seen *seen)
{
    __u16 local = bpf_htons(seen->key.local_port), remote = bpf_htons(seen->key.remote_port);
    if (seen->key.protocol == IPPROTO_TCP && seen->flags & TCP_SYN)
        return seen->flags & TCP_ACK ? !seen->into : seen->into;
    if (seen->key.protocol == IPPROTO_TCP || seen->key.protocol == IPPROTO_UDP) {
        if (local < 1024 && remote >= 1024)
            return 1;
        if (remote < 1024 && local >= 1024)
            return 0;
    }
    return seen->into;
}

#ifdef ASKED
static struct bpf_sock *(*bpf_sk_fullsock)(struct bpf_sock *sk) = (void *)BPF_FUNC_sk_fullsock;

static __always_inline int is_answered_by(struct seen *seen, struct talk *talk)
{
    struct place *backend = &talk->choice.backend;
    return backend->port == seen->key.remote_port && backend->protocol == seen->key.protocol && backend->addr[3] == seen->key.remote[3]
           && backend->addr[2] == seen->key.remote[2] && backend->addr[1] == seen->key.remote[1] && backend->addr[0] == seen->key.remote[0];
}

static __always_inline void note_asked(struct counted *fresh, struct talk *talk)
{
    __builtin_memcpy(fresh->asked, talk->frontend.addr, 16);
    fresh->asked_port = talk->frontend.port;
}

// What chooses a backend at the socket leaves no trace in packets; the socket knows it, and the packet has its socket until the stack of
// the node takes it.
static __always_inline void ask_socket(struct __sk_buff *skb, struct seen *seen, struct counted *fresh)
{
    struct bpf_sock *sk = skb->sk;
    if (seen->into || !sk)
        return;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return;
    struct talk *talk = bpf_sk_storage_get(&connected, sk, 0, 0);
    if (talk && is_answered_by(seen, talk)) {
        note_asked(fresh, talk);
        return;
    }
    if (seen->key.protocol != IPPROTO_UDP)
        return;
    struct talks *talks = bpf_sk_storage_get(&spoken, sk, 0, 0);
    if (!talks)
        return;
    for (int at = 0; at < TALKS; at++) {
        if (is_answered_by(seen, &talks->all[at])) {
            note_asked(fresh, &talks->all[at]);
            return;
        }
    }
}
#endif

// The verifier has to see that there are two; the compiler knows it, and would not show it.
static __always_inline struct way *way_of(struct counted *counted, __u64 into)
{
    asm volatile("%0 &= 1" : "+r"(into));
    return &counted->ways[into];
}

// What opens a connection opens another one than that which is counted, whose end nobody saw: from the same ports numbers go up (RFC 6528), and
// what is sent again has the number that it had.
static __always_inline int is_another(struct seen *seen, struct counted *counted)
{
    if (seen->key.protocol != IPPROTO_TCP || seen->into != counted->remote_began)
        return 0;
    struct way *way = way_of(counted, seen->into);
    return way->flags & NEXT_KNOWN && (__s32)(seen->seq + 1 - way->next) > 0;
}

// The packet's entry, which is made where there is none; 0: there is no room.
static __always_inline struct counted *entry(struct __sk_buff *skb, struct seen *seen)
{
    struct counted *counted = bpf_map_lookup_elem(&flow_entries, &seen->key);
    __u64 how = BPF_NOEXIST;
    if (counted) {
        if (!opens(seen) || (!counted->ended && !is_another(seen, counted)))
            return counted;
        counted->ended = 1;
        if (!ring(REPLACED, &seen->key, counted)) {
            // Its next SYN is the same connection's.
            counted->ended = counted->finished = 0;
            seen->merged = 1;
            return counted;
        }
        how = BPF_ANY;
    }
    __u32 first = 0;
    struct counted *fresh = bpf_map_lookup_elem(&flow_fresh, &first);
    if (!fresh)
        return 0;
    __builtin_memset(fresh, 0, sizeof(*fresh));
    // Told from others of its key by this, so that it is exact.
    fresh->first = fresh->last = bpf_ktime_get_ns();
    fresh->remote_began = remote_began(seen);
#ifdef ASKED
    ask_socket(skb, seen, fresh);
#else
    (void)skb;
#endif
    // Another processor may have made it just now.
    if (!bpf_map_update_elem(&flow_entries, &seen->key, fresh, how) || how == BPF_NOEXIST)
        return bpf_map_lookup_elem(&flow_entries, &seen->key);
    // There is no memory for another one: it begins in place of the one that rang, whose packets were all told by that.
    counted = bpf_map_lookup_elem(&flow_entries, &seen->key);
    if (counted)
        *counted = *fresh;
    return counted;
}

static __always_inline void count_tcp(struct seen *seen, struct counted *counted, struct way *way)
{
    __u32 taken = seen->payload + !!(seen->flags & TCP_SYN) + !!(seen->flags & TCP_FIN), end = seen->seq + taken;
    if (taken) {
        if (way->flags & NEXT_KNOWN && (__s32)(end - way->next) <= 0)
            __sync_fetch_and_add(&way->retransmissions, 1);
        else
            way->next = end;
    }
    way->flags |= seen->flags | (taken ? NEXT_KNOWN : 0);
    if (seen->flags & TCP_SYN && !(seen->flags & TCP_ACK) && !counted->opened)
        counted->opened = bpf_ktime_get_ns();
    if (!counted->handshake && counted->opened && seen->into == counted->remote_began && !(seen->flags & TCP_SYN)
        && seen->flags & TCP_ACK && way_of(counted, !seen->into)->flags & TCP_SYN)
        counted->handshake = (bpf_ktime_get_ns() - counted->opened) / 1000 + 1;
    if (seen->flags & TCP_RST)
        __sync_fetch_and_add(&way->resets, 1);
    if (seen->flags & TCP_FIN)
        counted->finished |= 1 << seen->into;
    if (!counted->ended && (seen->flags & TCP_RST || counted->finished == 3)) {
        counted->ended = 1;
        ring(ENDED, &seen->key, counted);
    }
}

static __always_inline void count_sctp(struct seen *seen, struct counted *counted, struct way *way)
{
    if (seen->chunk == SCTP_INIT)
        way->flags |= TCP_SYN;
    if (seen->chunk == SCTP_ABORT)
        __sync_fetch_and_add(&way->resets, 1);
    if (!counted->ended && (seen->chunk == SCTP_ABORT || seen->chunk == SCTP_SHUTDOWN_COMPLETE)) {
        counted->ended = 1;
        ring(ENDED, &seen->key, counted);
    }
}

// Counts a packet that was read.
static __always_inline void tally(struct __sk_buff *skb, struct seen *seen)
{
    struct counted *counted = entry(skb, seen);
    if (!counted || seen->merged)
        miss(seen);
    if (!counted)
        return;
    struct way *way = way_of(counted, seen->into);
    __sync_fetch_and_add(&way->packets, seen->packets);
    __sync_fetch_and_add(&way->bytes, seen->bytes);
    // As of the last tick: asking the clock costs as much as the rest. The first packet's time is exact, and may be later than that.
    __u64 now = bpf_ktime_get_coarse_ns();
    if (counted->last < now)
        counted->last = now;
    // An answer; or the next packet, as each one that is too large for a link gets an error of its own: but for later fragments, of which no error
    // shows the ports.
    if (counted->error_by && (seen->into != counted->remote_began || (counted->error_by & ERROR_TOO_BIG && !seen->later)))
        counted->error_by = 0;
    if (seen->key.protocol == IPPROTO_TCP)
        count_tcp(seen, counted, way);
    else if (seen->key.protocol == IPPROTO_SCTP)
        count_sctp(seen, counted, way);
}
