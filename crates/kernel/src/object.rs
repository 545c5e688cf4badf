//! Loading compiled programs (ELF objects) into the kernel, with `bpf(2)`.
//!
//! The loader of `aya` reads all types of the running kernel first, whether a program needs them or not: 36 MB at its most. Ours need none, since
//! they read only what the kernel promises to all programs. So an object is taken apart by `aya_obj`, and given to the kernel here.

mod call;

use std::{
    collections::{HashMap, HashSet},
    ffi::CStr,
    io,
    os::fd::{AsRawFd, OwnedFd},
};

use aya_obj::{EbpfSectionKind, Map, Object as Parsed, btf::BtfError, relocation::EbpfRelocationError};
use call::{
    GetInfo, MAP_CREATE, MapCreate, OBJ_GET_INFO_BY_FD, PROG_LOAD, ProgInfo, ProgLoad, address, length, load_types,
    number, open, short,
};

/// Of the verifier's words.
const LOG: usize = 1 << 20;
/// The last of them that are told.
const TOLD: usize = 2000;

/// What a program is for: `enum bpf_prog_type`, and `enum bpf_attach_type` where that belongs to the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) kind: u32,
    pub(crate) attach: u32,
}

/// An object whose maps are made, and whose programs can be loaded.
pub(crate) struct Object {
    parsed: Parsed,
    types: Option<OwnedFd>,
    maps: HashMap<String, OwnedFd>,
}

impl Object {
    /// Makes the maps of an object, with other capacities for those that are named. Maps that are given take the place of the object's own.
    ///
    /// # Errors
    /// Where the kernel refuses a map, for lack of a permission or of a feature.
    pub(crate) fn new(
        object: &[u8],
        capacities: &[(&str, u32)],
        given: Vec<(String, OwnedFd)>,
    ) -> Result<Self, LoadError> {
        let mut parsed = Parsed::parse(object).map_err(|error| LoadError::Object(Box::new(error)))?;
        let types = match aya::features().btf() {
            Some(features) => parsed.fixup_and_sanitize_btf(features)?.map(aya_obj::btf::Btf::to_bytes),
            None => None,
        };
        // A kernel that does not take them does without, or refuses a map that needs them.
        let (types, mut refused) = match types.map(|types| load_types(&types)) {
            Some(Err(refused)) => (None, Some(refused)),
            types => (types.and_then(Result::ok), None),
        };
        let mut maps: HashMap<String, OwnedFd> = given.into_iter().collect();
        for (name, map) in &mut parsed.maps {
            if map.section_kind() != EbpfSectionKind::BtfMaps {
                return Err(LoadError::Foreign { name: name.clone() });
            }
            if let Some((_, capacity)) = capacities.iter().find(|(named, _)| named == name) {
                map.set_max_entries(*capacity);
            }
            if !maps.contains_key(name) {
                match (create(name, map, types.as_ref()), refused) {
                    (Ok(made), before) => {
                        maps.insert(name.clone(), made);
                        refused = before;
                    }
                    (Err(_), Some(source)) if needs_types(map) => {
                        return Err(LoadError::NoTypes { name: name.clone(), source });
                    }
                    (Err(source), _) => return Err(LoadError::Map { name: name.clone(), source }),
                }
            }
        }
        link(&mut parsed, &maps)?;
        Ok(Self { parsed, types, maps })
    }

    /// A map of the object.
    pub(crate) fn map(&self, name: &'static str) -> Result<&OwnedFd, LoadError> {
        self.maps.get(name).ok_or(LoadError::Missing { name })
    }

    /// Loads a program of the object; it, and its number.
    ///
    /// # Errors
    /// Where the kernel refuses it.
    pub(crate) fn program(&self, name: &'static str, kind: Kind) -> Result<(OwnedFd, u32), LoadError> {
        let program = self.load(name, kind)?;
        let mut found = ProgInfo::default();
        let info = address(std::ptr::from_mut(&mut found));
        let mut request = GetInfo { descriptor: number(&program), length: length(size_of::<ProgInfo>()), info };
        call::call(OBJ_GET_INFO_BY_FD, &mut request).map_err(|source| LoadError::Number { name, source })?;
        Ok((program, found.id))
    }

    fn load(&self, name: &'static str, kind: Kind) -> Result<OwnedFd, LoadError> {
        let program = self.parsed.programs.get(name).ok_or(LoadError::Missing { name })?;
        let function = self.parsed.functions.get(&program.function_key()).ok_or(LoadError::Missing { name })?;
        let functions = function.func_info.func_info_bytes();
        let mut request = ProgLoad {
            kind: kind.kind,
            count: length(function.instructions.len()),
            instructions: address(function.instructions.as_ptr()),
            license: address(program.license.as_ptr()),
            name: short(name),
            attach: kind.attach,
            ..ProgLoad::default()
        };
        if let Some(types) = self.types.as_ref().filter(|_| function.func_info_rec_size > 0) {
            request.types = number(types);
            request.function_size = length(function.func_info_rec_size);
            request.functions = address(functions.as_ptr());
            request.function_count = length(function.func_info.len());
        }
        let refused = match open(PROG_LOAD, &mut request) {
            Ok(program) => return Ok(program),
            Err(source) => source,
        };
        // Once more, to hear why.
        let mut log = vec![0_u8; LOG];
        (request.log_level, request.log_size, request.log) = (1, length(LOG), address(log.as_mut_ptr()));
        match open(PROG_LOAD, &mut request) {
            Ok(program) => Ok(program),
            Err(again) => {
                let mut said = last_words(&log);
                if said.is_empty() && again.raw_os_error() != refused.raw_os_error() {
                    said = format!("when it is asked again, {again}");
                }
                Err(LoadError::Program { name, said, source: refused })
            }
        }
    }
}

/// Whether the kernel has no such map without the types of its values: what belongs to sockets (`BPF_MAP_TYPE_SK_STORAGE`).
fn needs_types(map: &Map) -> bool {
    map.map_type() == 24
}

/// Writes into the instructions which maps and functions they mean.
fn link(parsed: &mut Parsed, maps: &HashMap<String, OwnedFd>) -> Result<(), LoadError> {
    let text: HashSet<usize> = parsed.functions.keys().map(|(section, _)| *section).collect();
    let definitions = parsed.maps.clone();
    let made = definitions.iter().filter_map(|(name, map)| Some((name.as_str(), maps.get(name)?.as_raw_fd(), map)));
    parsed.relocate_maps(made, &text)?;
    parsed.relocate_calls(&text)?;
    parsed.sanitize_functions(aya::features());
    Ok(())
}

fn create(name: &str, map: &Map, types: Option<&OwnedFd>) -> io::Result<OwnedFd> {
    let mut request = MapCreate {
        kind: map.map_type(),
        key_size: map.key_size(),
        value_size: map.value_size(),
        capacity: map.max_entries(),
        flags: map.map_flags(),
        name: short(name),
        ..MapCreate::default()
    };
    if let (Map::Btf(map), Some(types)) = (map, types) {
        (request.types, request.key_type, request.value_type) =
            (number(types), map.def.btf_key_type_id, map.def.btf_value_type_id);
    }
    open(MAP_CREATE, &mut request)
}

/// A program for devices that says the same of every packet (`linux/pkt_cls.h`).
#[cfg(test)]
pub(crate) fn always(verdict: i32) -> OwnedFd {
    // The verdict to the register of the answer; the end.
    let instructions = [u64::from(verdict.cast_unsigned()) << 32 | 0xb7, 0x95];
    let mut request = ProgLoad {
        kind: 3,
        count: length(instructions.len()),
        instructions: address(instructions.as_ptr()),
        license: address(c"Apache-2.0".as_ptr()),
        name: short("other"),
        ..ProgLoad::default()
    };
    open(PROG_LOAD, &mut request).unwrap()
}

fn last_words(log: &[u8]) -> String {
    let said = CStr::from_bytes_until_nul(log).map(CStr::to_bytes).unwrap_or(log);
    String::from_utf8_lossy(said.get(said.len().saturating_sub(TOLD)..).unwrap_or_default()).trim().to_owned()
}

/// Why compiled programs are not in the kernel.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is no object.
    #[error("cannot read the compiled programs")]
    Object(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The object's own types are none.
    #[error("cannot read the types of the compiled programs")]
    Types(#[from] BtfError),
    /// The object's parts do not fit each other.
    #[error("cannot put the compiled programs together")]
    Parts(#[from] EbpfRelocationError),
    /// The object is not what this program was built for.
    #[error("the compiled programs have no {name}")]
    Missing {
        /// The program or map.
        name: &'static str,
    },
    /// The object has a map of a kind that is not made here.
    #[error("the compiled programs have variables: {name}")]
    Foreign {
        /// The map.
        name: String,
    },
    /// The kernel did not take a map.
    #[error("cannot make the map {name} of compiled programs")]
    Map {
        /// The map.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not take the object's types, which a map needs.
    #[error("cannot make the map {name} of compiled programs: the kernel does not take their types")]
    NoTypes {
        /// The map.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not tell a program's number.
    #[error("cannot tell the number of the program {name}")]
    Number {
        /// The program.
        name: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel did not take a program.
    #[error("the kernel refuses the program {name}, saying {said:?}")]
    Program {
        /// The program.
        name: &'static str,
        /// The last that the verifier said of it.
        said: String,
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
