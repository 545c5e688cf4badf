//! tcpdump's language (`pcap-filter(7)`), through libpcap's own compiler. The library is looked for when an expression is there, and not before:
//! podnet starts without it.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    ptr, slice,
};

use podnet_flow::{capture::Instruction, pcapng::ETHERNET};

/// What the library is called: by itself, and by Debian.
const NAMES: [&CStr; 2] = [c"libpcap.so.1", c"libpcap.so.0.8"];

/// Why an expression is no filter.
#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    /// There is no library.
    #[error(
        "expressions are compiled by libpcap, which is not there: {0} (Debian: apt-get install libpcap0.8; Fedora: dnf install libpcap)"
    )]
    NoLibrary(String),
    /// It is not as it has been since 1994.
    #[error("libpcap has no {0}")]
    NoFunction(&'static str),
    /// It means nothing.
    #[error("{expression:?} is no expression: {why}")]
    Wrong {
        /// What was written.
        expression: String,
        /// What libpcap says.
        why: String,
    },
}

/// `pcap_t`, of which nothing is known here.
#[repr(C)]
struct Handle {
    _nothing: [u8; 0],
}

/// `struct bpf_program` (`pcap/bpf.h`).
#[repr(C)]
struct Program {
    length: c_uint,
    instructions: *mut libc::sock_filter,
}

type OpenDead = unsafe extern "C" fn(c_int, c_int) -> *mut Handle;
type Compile = unsafe extern "C" fn(*mut Handle, *mut Program, *const c_char, c_int, c_uint) -> c_int;
type Explain = unsafe extern "C" fn(*mut Handle) -> *const c_char;
type Free = unsafe extern "C" fn(*mut Program);
type Close = unsafe extern "C" fn(*mut Handle);

/// Compiles an expression for packets with an Ethernet header, of each of which the filter lets `snap` bytes through.
///
/// # Errors
/// [`ExpressionError::Wrong`] with what libpcap says, or that there is no libpcap.
pub fn compile(expression: &str, snap: u32) -> Result<Vec<Instruction>, ExpressionError> {
    /// `PCAP_NETMASK_UNKNOWN` (`pcap/pcap.h`).
    const NO_NETMASK: c_uint = u32::MAX;
    let wrong = |why: &str| ExpressionError::Wrong { expression: expression.to_owned(), why: why.to_owned() };
    let text = CString::new(expression).map_err(|_| wrong("there is a zero byte in it"))?;
    let library = open()?;
    // SAFETY: libpcap's functions of these names have had these types since version 0.5 (`pcap_open_dead`, 2000).
    let (open, compile, explain, free, close) = unsafe {
        (
            std::mem::transmute::<*mut c_void, OpenDead>(function(library, c"pcap_open_dead", "pcap_open_dead")?),
            std::mem::transmute::<*mut c_void, Compile>(function(library, c"pcap_compile", "pcap_compile")?),
            std::mem::transmute::<*mut c_void, Explain>(function(library, c"pcap_geterr", "pcap_geterr")?),
            std::mem::transmute::<*mut c_void, Free>(function(library, c"pcap_freecode", "pcap_freecode")?),
            std::mem::transmute::<*mut c_void, Close>(function(library, c"pcap_close", "pcap_close")?),
        )
    };
    // SAFETY: it takes numbers, and answers with null or with what `pcap_close` takes.
    let handle = unsafe { open(c_int::from(ETHERNET), c_int::try_from(snap).unwrap_or(c_int::MAX)) };
    if handle.is_null() {
        return Err(wrong("libpcap has no memory"));
    }
    let mut program = Program { length: 0, instructions: ptr::null_mut() };
    // SAFETY: the handle is open, the text ends with zero; the program is written to, and on success holds `length` instructions, which have
    // the kernel's layout, until `pcap_freecode`. What `pcap_geterr` answers is a text in the handle, which is read before that is closed.
    unsafe {
        let compiled = match compile(handle, &raw mut program, text.as_ptr(), 1, NO_NETMASK) {
            0 => {
                let instructions = slice::from_raw_parts(program.instructions, program.length as usize);
                let instruction = |one: &libc::sock_filter| Instruction(one.code, one.jt, one.jf, one.k);
                let instructions = instructions.iter().map(instruction).collect();
                free(&raw mut program);
                Ok(instructions)
            }
            _ => Err(wrong(&CStr::from_ptr(explain(handle)).to_string_lossy())),
        };
        close(handle);
        compiled
    }
}

/// The library, which stays.
fn open() -> Result<*mut c_void, ExpressionError> {
    for name in NAMES {
        // SAFETY: the name ends with zero. What the library does as it is loaded is what it does in every program that is linked with it.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if !library.is_null() {
            return Ok(library);
        }
    }
    // SAFETY: it answers with null or with a text of this thread, which is read before anything else is asked of the loader.
    let why = unsafe {
        let why = libc::dlerror();
        if why.is_null() { String::new() } else { CStr::from_ptr(why).to_string_lossy().into_owned() }
    };
    Err(ExpressionError::NoLibrary(why))
}

fn function(library: *mut c_void, name: &CStr, called: &'static str) -> Result<*mut c_void, ExpressionError> {
    // SAFETY: the library is open, the name ends with zero.
    let function = unsafe { libc::dlsym(library, name.as_ptr()) };
    if function.is_null() { Err(ExpressionError::NoFunction(called)) } else { Ok(function) }
}
