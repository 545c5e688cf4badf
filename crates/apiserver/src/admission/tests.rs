mod decode;
mod defaults;
mod objects;
mod prepare;
mod updates;
mod validate;
mod validate_data;
mod validate_services;
