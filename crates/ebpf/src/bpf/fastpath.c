// The way past the node's stack for what the stack has let through.
//
// Nothing is configured here and nothing is decided: a packet that comes in at an interface of ours is given a token and is left to
// the stack (`probe`). Where the very same packet is about to leave by another interface of ours, the stack has accepted it, routed it,
// and changed nothing but its time to live and, where it translated it, addresses and ports: for LEASE from then on, packets of the same flow that came in by
// the same interface with the same Ethernet addresses leave as that one did (`forward`). Then one of them has to prove it again, so
// that connection tracking goes on to know the connection, and whatever the stack would do otherwise by now is done.
//
// What was translated is known again by `asked`, since none of its addresses need be what they were: how connection tracking
// translates a connection does not change while it lives, and when it begins or ends is seen here.
//
// What begins or ends a connection is always the stack's, as is everything that is not plain: fragments, options, a time to live that
// ends here. A packet that is larger than any that has proved the flow proves it anew, so that the stack tells what is too large.

#include "kernel.h"
#ifdef FLOWS
#include "flows.h"
#endif

// Flows of IPv4 and of IPv6: each direction of a connection is one. The least recently used goes where there are more.
#define FLOWS_V4 65536
#define FLOWS_V6 16384
// How long a proof holds, and how long an outstanding one is waited for: ns.
#define LEASE 4000000000
#define PATIENCE 100000000
// How many probes may be in the stack at a time, of each processor: it works on 64 packets together.
#define ASKED 256

// What `counters` counts: packets led past the stack; packets sent to prove a flow; proofs that came through.
enum { FORWARDED, PROBED, PROVEN, COUNTERS };

struct flow_v4 {
    __u32 from;
    __be32 addrs[2];
    __be16 ports[2];
    __u32 protocol;
};

struct flow_v6 {
    __u32 from;
    __be32 addrs[8];
    __be16 ports[2];
    __u32 protocol;
};

union key {
    struct flow_v4 v4;
    struct flow_v6 v6;
};

struct flow {
    // Until when the proof holds, in ns of `now`; 0: there is none.
    __u64 until;
    // When the last probe entered the stack.
    __u64 probed;
    // The node's permit (see `permits`) that the proof was given under, and that the last probe left under.
    __u32 permit;
    __u32 asked;
    // The probe's identity, class (see `packet`), token and time to live.
    __u32 identity;
    __be32 class;
    __u16 token;
    __u8 hops;
    // The connection is at its end: no probe any more.
    __u8 closed;
    // What is sent goes to the pod behind the device `to`, and not out of it.
    __u8 to_peer;
    // It leaves with the addresses and ports of `leaves_as`.
    __u8 translated;
    // The device by which it leaves, and the largest packet that did.
    __u32 to;
    __u32 largest;
    // Ethernet addresses (receiver, sender) as they come and as they leave.
    __u8 came[12];
    __u8 leaves[12];
    // By how much these addresses differ from those it came with, as a checksum counts it (RFC 1071).
    __u32 difference;
    union key leaves_as;
};

// A probe that is in the stack.
struct asked {
    union key key;
    __u16 token;
    __u8 is_v6;
};

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, FLOWS_V4);
    __type(key, struct flow_v4);
    __type(value, struct flow);
} flows_v4 SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_LRU_HASH);
    __uint(max_entries, FLOWS_V6);
    __type(key, struct flow_v6);
    __type(value, struct flow);
} flows_v6 SEC(".maps");

// By the token's last digits. A probe enters and leaves the stack on one processor.
struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, ASKED);
    __type(key, __u32);
    __type(value, struct asked);
} probes SEC(".maps");

// What the agent says. Another number ends all proofs: it counts it up when something changes that a proof rests upon. And `alive` is until
// when proofs count at all, in ns of `now`: it is put off as long as there is an agent, so that nothing passes by what others do when
// none is there any more.
struct permit {
    __u64 number;
    __u64 alive;
};

struct {
    __uint(type, BPF_MAP_TYPE_ARRAY);
    __uint(max_entries, 1);
    __type(key, __u32);
    __type(value, struct permit);
} permits SEC(".maps");

struct {
    __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
    __uint(max_entries, COUNTERS);
    __type(key, __u32);
    __type(value, __u64);
} counters SEC(".maps");

// A packet as far as it matters here. `identity`: what tells it from others of its flow and is never translated. `flags`: of TCP. `class`: the type of service, of IPv6 with the flow label. `hops`: the time to live. `own`: the length of the transport's header.
struct packet {
    union key key;
    __u8 *data;
    __u32 identity;
    __be32 class;
    __u8 hops;
    __u32 largest;
    __u8 flags;
    __u8 is_v6;
    __u8 own;
};

static __always_inline void count(__u32 what)
{
    __u64 *counter = bpf_map_lookup_elem(&counters, &what);
    if (counter)
        *counter += 1;
}

// ns since the machine's start, as of the last tick.
static __always_inline __u64 now(void)
{
    return bpf_ktime_get_coarse_ns();
}

static __always_inline struct permit *permit(void)
{
    __u32 first = 0;
    return bpf_map_lookup_elem(&permits, &first);
}

static __always_inline __u32 permit_number(void)
{
    struct permit *given = permit();
    return given ? given->number : 0;
}

static __always_inline struct flow *find(struct packet *packet)
{
    return packet->is_v6 ? bpf_map_lookup_elem(&flows_v6, &packet->key.v6)
                         : bpf_map_lookup_elem(&flows_v4, &packet->key.v4);
}

static __always_inline void put(struct packet *packet, struct flow *flow)
{
    if (packet->is_v6)
        bpf_map_update_elem(&flows_v6, &packet->key.v6, flow, BPF_ANY);
    else
        bpf_map_update_elem(&flows_v4, &packet->key.v4, flow, BPF_ANY);
}

// Reads ports, flags, and sizes; `protocol` and `header` (the length of the IP header) are known. Whether that is a plain packet.
static __always_inline int read_ports(struct __sk_buff *skb, struct packet *packet, __u8 protocol, __be16 *ports, __u32 header)
{
    __u8 *start = packet->data + ETH_HLEN + header, *end = (void *)(long)skb->data_end;
    __u32 own;
    if (protocol == IPPROTO_TCP) {
        struct tcphdr *tcp = (void *)start;
        if ((__u8 *)(tcp + 1) > end)
            return 0;
        own = tcp->doff * 4;
        packet->identity = tcp->seq;
        packet->flags = start[13];
    } else if (protocol == IPPROTO_UDP) {
        if (start + sizeof(struct udphdr) > end)
            return 0;
        own = sizeof(struct udphdr);
        packet->identity = (packet->identity << 16) + ((struct udphdr *)start)->len;
        packet->flags = 0;
    } else {
        return 0;
    }
    ports[0] = ((__be16 *)start)[0];
    ports[1] = ((__be16 *)start)[1];
    packet->own = own;
    packet->largest = skb->gso_size ? header + own + skb->gso_size : skb->len - ETH_HLEN;
    return 1;
}

static __always_inline int read_v4(struct __sk_buff *skb, struct packet *packet, __u32 from)
{
    struct iphdr *ip = (void *)(packet->data + ETH_HLEN);
    if ((void *)(ip + 1) > (void *)(long)skb->data_end || *(__u8 *)ip != 0x45 || ip->ttl <= 1
        || ip->frag_off & bpf_htons(0x3fff))
        return 0;
    packet->is_v6 = 0;
    packet->class = ip->tos;
    packet->hops = ip->ttl;
    packet->identity = ip->id;
    packet->key.v4 = (struct flow_v4){.from = from, .addrs = {ip->saddr, ip->daddr}, .protocol = ip->protocol};
    return read_ports(skb, packet, ip->protocol, packet->key.v4.ports, sizeof(*ip));
}

static __always_inline int read_v6(struct __sk_buff *skb, struct packet *packet, __u32 from)
{
    struct ipv6hdr *ip = (void *)(packet->data + ETH_HLEN);
    if ((void *)(ip + 1) > (void *)(long)skb->data_end || *(__u8 *)ip >> 4 != 6 || ip->hop_limit <= 1)
        return 0;
    packet->is_v6 = 1;
    packet->class = *(__be32 *)ip;
    packet->hops = ip->hop_limit;
    packet->identity = 0;
    packet->key.v6 = (struct flow_v6){.from = from, .protocol = ip->nexthdr};
    __builtin_memcpy(packet->key.v6.addrs, &ip->saddr, 32);
    return read_ports(skb, packet, ip->nexthdr, packet->key.v6.ports, sizeof(*ip));
}

static __always_inline int read(struct __sk_buff *skb, struct packet *packet, __u32 from)
{
    packet->data = (void *)(long)skb->data;
    if (packet->data + ETH_HLEN > (__u8 *)(long)skb->data_end || skb->vlan_present)
        return 0;
    if (skb->protocol == bpf_htons(ETH_P_IP))
        return read_v4(skb, packet, from);
    if (skb->protocol == bpf_htons(ETH_P_IPV6))
        return read_v6(skb, packet, from);
    return 0;
}

// The key of the other direction, which comes in by `from`.
static __always_inline void turn(struct packet *packet, __u32 from)
{
    if (packet->is_v6) {
        struct flow_v6 key = packet->key.v6;
        packet->key.v6.from = from;
        __builtin_memcpy(packet->key.v6.addrs, key.addrs + 4, 16);
        __builtin_memcpy(packet->key.v6.addrs + 4, key.addrs, 16);
        packet->key.v6.ports[0] = key.ports[1];
        packet->key.v6.ports[1] = key.ports[0];
    } else {
        struct flow_v4 key = packet->key.v4;
        packet->key.v4.from = from;
        packet->key.v4.addrs[0] = key.addrs[1];
        packet->key.v4.addrs[1] = key.addrs[0];
        packet->key.v4.ports[0] = key.ports[1];
        packet->key.v4.ports[1] = key.ports[0];
    }
}

// The beginning or the end of a connection, seen by connection tracking: until all of it is, no packet passes it by.
static __always_inline void turning_point(struct packet *packet, struct flow *flow)
{
    __u8 closed = !(packet->flags & TCP_SYN);
    struct flow way = *flow;
    // A value that is replaced may at once be another flow's.
    if (find(packet) != flow)
        return;
    flow->until = 0;
    flow->closed = closed;
    if (!way.to)
        return;
    if (way.translated)
        packet->key = way.leaves_as;
    turn(packet, way.to);
    flow = find(packet);
    if (flow) {
        flow->until = 0;
        flow->closed = closed;
    }
}

static __always_inline void probe(struct __sk_buff *skb, struct packet *packet, struct flow *known, __u64 now)
{
    struct flow fresh, *flow = known ? known : &fresh;
    __u16 token = bpf_get_prandom_u32() | 1;
    __builtin_memset(&fresh, 0, sizeof(fresh));
    flow->probed = now;
    flow->asked = permit_number();
    flow->identity = packet->identity;
    flow->class = packet->class;
    flow->hops = packet->hops;
    __builtin_memcpy(flow->came, packet->data, 12);
    flow->token = token;
    if (!known)
        put(packet, flow);
    __u32 slot = token % ASKED;
    struct asked *asked = bpf_map_lookup_elem(&probes, &slot);
    if (asked)
        *asked = (struct asked){.key = packet->key, .token = token, .is_v6 = packet->is_v6};
    skb->tc_index = token;
    count(PROBED);
}

static __always_inline int same_came(struct flow *flow, __u8 *data)
{
    __u32 *known = (__u32 *)flow->came, *came = (__u32 *)data;
    return known[0] == came[0] && known[1] == came[1] && known[2] == came[2];
}

static __always_inline int is_proven(struct flow *flow, __u64 now)
{
    struct permit *given = permit();
    return given && flow->until > now && flow->permit == (__u32)given->number && given->alive > now;
}

static __always_inline __u16 fold(__u64 sum)
{
    sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    return (sum & 0xffff) + (sum >> 16);
}

// Where the ports and the checksum over the payload are, from the packet's beginning.
static __always_inline __u32 ports_at(struct packet *packet)
{
    return ETH_HLEN + (packet->is_v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr));
}

static __always_inline __be32 joined(__be16 *ports)
{
    return ports[0] | (__u32)ports[1] << 16;
}

// The sum over ports and payload, which counts the addresses, too. The kernel knows how much of it the device is still to add. Whether the packet
// can be read again where it is now.
static __always_inline int translate_sum(struct __sk_buff *skb, struct packet *packet, struct flow *flow)
{
    __u32 tcp = packet->is_v6 ? packet->key.v6.protocol == IPPROTO_TCP : packet->key.v4.protocol == IPPROTO_TCP;
    __u32 at = ports_at(packet) + (tcp ? __builtin_offsetof(struct tcphdr, check) : __builtin_offsetof(struct udphdr, check));
    __u64 flags = tcp ? 0 : BPF_F_MARK_MANGLED_0;
    __be32 came = joined(packet->is_v6 ? packet->key.v6.ports : packet->key.v4.ports);
    __be32 leaves = joined(packet->is_v6 ? flow->leaves_as.v6.ports : flow->leaves_as.v4.ports);
    if (bpf_l4_csum_replace(skb, at, 0, flow->difference, flags | BPF_F_PSEUDO_HDR))
        return 0;
    if (came != leaves && bpf_l4_csum_replace(skb, at, came, leaves, flags | sizeof(came)))
        return 0;
    packet->data = (void *)(long)skb->data;
    return packet->data + ports_at(packet) + sizeof(leaves) <= (__u8 *)(long)skb->data_end;
}

#ifdef FLOWS
// Counts a packet to the pod behind a device by what was read of it; `key` is as it leaves.
static __attribute__((noinline)) int count_led(struct __sk_buff *skb, struct packet *packet, __u32 device)
{
    struct seen seen;
    __builtin_memset(&seen, 0, sizeof(seen));
    seen.key.device = device;
    seen.into = 1;
    seen.packets = 1;
    seen.bytes = skb->len - ETH_HLEN;
    if (packet->is_v6) {
        struct flow_v6 *key = &packet->key.v6;
        __builtin_memcpy(seen.key.remote, key->addrs, 16);
        __builtin_memcpy(seen.key.local, key->addrs + 4, 16);
        seen.key.remote_port = key->ports[0];
        seen.key.local_port = key->ports[1];
        seen.key.protocol = key->protocol;
    } else {
        struct flow_v4 *key = &packet->key.v4;
        mapped(seen.key.remote, key->addrs[0]);
        mapped(seen.key.local, key->addrs[1]);
        seen.key.remote_port = key->ports[0];
        seen.key.local_port = key->ports[1];
        seen.key.protocol = key->protocol;
    }
    if (!is_wanted(&seen))
        return 0;
    // Of TCP that is the sequence number.
    seen.seq = bpf_htonl(packet->identity);
    seen.flags = packet->flags;
    measure(skb, &seen, ports_at(packet), packet->own);
    tally(skb, &seen);
    return 0;
}
#endif

// The packet leaves as the one that proved its flow did.
static __always_inline int forward(struct __sk_buff *skb, struct packet *packet, struct flow *flow)
{
    __u32 to = flow->to, to_peer = flow->to_peer;
    if (flow->translated && !translate_sum(skb, packet, flow))
        return TC_ACT_SHOT;
    __u8 *data = packet->data;
    if (packet->is_v6) {
        if (data + ETH_HLEN + sizeof(struct ipv6hdr) + sizeof(__be32) > (__u8 *)(long)skb->data_end)
            return TC_ACT_SHOT;
        __builtin_memcpy(data, flow->leaves, 12);
        if (flow->translated)
            __builtin_memcpy(data + ETH_HLEN + sizeof(struct ipv6hdr), flow->leaves_as.v6.ports, 4);
        __u8 hops = data[ETH_HLEN + 7] - 1;
        // The sum over the whole packet, where the device gave one, has to follow.
        bpf_skb_store_bytes(skb, ETH_HLEN + 7, &hops, 1, BPF_F_RECOMPUTE_CSUM);
        if (flow->translated)
            bpf_skb_store_bytes(skb, ETH_HLEN + 8, flow->leaves_as.v6.addrs, 32, BPF_F_RECOMPUTE_CSUM);
    } else {
        struct iphdr *ip = (void *)(data + ETH_HLEN);
        if (data + ETH_HLEN + sizeof(*ip) + sizeof(__be32) > (__u8 *)(long)skb->data_end)
            return TC_ACT_SHOT;
        __builtin_memcpy(data, flow->leaves, 12);
        // The header's checksum follows addresses and time to live (RFC 1624).
        __u64 sum = (__u16)~ip->check + (__u64)(__u16)~bpf_htons(0x0100);
        if (flow->translated) {
            sum += flow->difference;
            __builtin_memcpy(&ip->saddr, flow->leaves_as.v4.addrs, 8);
            __builtin_memcpy(ip + 1, flow->leaves_as.v4.ports, 4);
        }
        ip->check = ~fold(sum);
        ip->ttl--;
    }
    count(FORWARDED);
#ifdef FLOWS
    // It does not pass the egress where packets to this pod are counted.
    if (to_peer) {
        if (flow->translated)
            packet->key = flow->leaves_as;
        count_led(skb, packet, to);
    }
#endif
    return to_peer ? bpf_redirect_peer(to, 0) : bpf_redirect(to, 0);
}

SEC("classifier") int podnet_enter(struct __sk_buff *skb)
{
    struct packet packet;
    // What is copied has to be written as a whole, the gaps too: kernels before 6.3 read no stack that nobody wrote.
    __builtin_memset(&packet, 0, sizeof(packet));
    skb->tc_index = 0;
    if (!read(skb, &packet, skb->ifindex))
        return TC_ACT_UNSPEC;
    struct flow *flow = find(&packet);
    if (packet.flags & (TCP_SYN | TCP_FIN | TCP_RST)) {
        if (flow)
            turning_point(&packet, flow);
        return TC_ACT_UNSPEC;
    }
    __u64 time = now();
    if (flow) {
        if (is_proven(flow, time)) {
            if (!same_came(flow, packet.data))
                return TC_ACT_UNSPEC;
            struct flow way = *flow;
            // A value that is replaced may at once be another flow's.
            if (packet.largest <= way.largest && find(&packet) == flow)
                return forward(skb, &packet, &way);
        }
        if (flow->closed || (flow->token && time < flow->probed + PATIENCE))
            return TC_ACT_UNSPEC;
    }
    // As above: it may be another's by now.
    if (flow && find(&packet) != flow)
        return TC_ACT_UNSPEC;
    probe(skb, &packet, flow, time);
    return TC_ACT_UNSPEC;
}

// The flow that a packet which leaves has proved, if any; `came` is to be how it came, and is how it leaves until then.
static __always_inline struct flow *asked_by(struct packet *packet, struct packet *came, __u16 token, int *translated)
{
    struct flow *flow = find(came);
    *translated = 0;
    if (flow && flow->token == token)
        return flow;
    *translated = 1;
    __u32 slot = token % ASKED;
    struct asked *asked = bpf_map_lookup_elem(&probes, &slot);
    if (!asked || asked->token != token || asked->is_v6 != packet->is_v6)
        return 0;
    came->key = asked->key;
    // Only what comes in by one device and is of one protocol can be the same packet.
    if (packet->is_v6 ? came->key.v6.from != packet->key.v6.from || came->key.v6.protocol != packet->key.v6.protocol
                      : came->key.v4.from != packet->key.v4.from || came->key.v4.protocol != packet->key.v4.protocol)
        return 0;
    flow = find(came);
    return flow && flow->token == token ? flow : 0;
}

static __always_inline int leave(struct __sk_buff *skb, __u8 to_peer)
{
    struct packet packet;
    int translated;
    __builtin_memset(&packet, 0, sizeof(packet));
    if (!skb->tc_index || !read(skb, &packet, skb->ingress_ifindex))
        return TC_ACT_UNSPEC;
    struct packet came = packet;
    struct flow *known = asked_by(&packet, &came, skb->tc_index, &translated);
    if (!known)
        return TC_ACT_UNSPEC;
    // A whole new value takes its place, so that nobody reads a half of it.
    struct flow flow = *known;
    if (flow.token != skb->tc_index || flow.identity != packet.identity || flow.closed || flow.asked != permit_number())
        return TC_ACT_UNSPEC;
    // What else the stack changes it has to change in every packet.
    if (flow.class != packet.class || flow.hops != (__u8)(packet.hops + 1))
        return TC_ACT_UNSPEC;
    __u64 time = now();
    if (!is_proven(&flow, time) || packet.largest > flow.largest)
        flow.largest = packet.largest;
    flow.until = time + LEASE;
    flow.permit = flow.asked;
    flow.token = 0;
    flow.to = skb->ifindex;
    flow.to_peer = to_peer;
    __builtin_memcpy(flow.leaves, packet.data, 12);
    flow.translated = translated;
    flow.leaves_as = packet.key;
    flow.difference = packet.is_v6 ? bpf_csum_diff(came.key.v6.addrs, 32, packet.key.v6.addrs, 32, 0)
                                   : bpf_csum_diff(came.key.v4.addrs, 8, packet.key.v4.addrs, 8, 0);
    put(&came, &flow);
    count(PROVEN);
    return TC_ACT_UNSPEC;
}

SEC("classifier") int podnet_to_pod(struct __sk_buff *skb)
{
    return leave(skb, 1);
}

SEC("classifier") int podnet_to_node(struct __sk_buff *skb)
{
    return leave(skb, 0);
}
